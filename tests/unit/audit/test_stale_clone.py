"""An audit in a clone that lacks decisions says that it cannot know where the aliases belong; of two logs that part it fails."""

from __future__ import annotations

from tasks.audit.dossier import Dossier
from tasks.audit.registry import aliases
from tasks.promotion.marks import Stale


def dossier(stale: Stale | None) -> Dossier:
    """Return a version whose alias is not where the log of this clone has it."""
    return Dossier(
        name="toy",
        version="2",
        tags={},
        aliases={"champion": "2"},
        decided={"champion": "1"},
        log_fault=None,
        stale=stale,
        in_git=True,
        log=[],
        versions={"1": {"verdict": "pass"}, "2": {"verdict": "pass"}},
        run_id="",
        receipts={},
        receipts_root=None,
        inputs_digest=None,
        selection=None,
        rounds={},
    )


def results(stale: Stale | None) -> list[tuple[str, str]]:
    return [(finding.result, finding.subject) for finding in aliases(dossier(stale), {}, None)]


def test_a_clone_that_lacks_decisions_accuses_nobody() -> None:
    assert results(None) == [("FAIL", "champion")]
    assert results(Stale("this clone knows 1 decision", forked=False)) == [("UNKNOWN", "toy")]
    assert results(Stale("decision 1 was made twice", forked=True)) == [("FAIL", "champion"), ("FAIL", "toy")]
