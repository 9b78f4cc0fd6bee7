"""Whether the registry still says what was decided: the check of `compactlm history --check`, `watch` and `serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tasks.errors import UserError
from tasks.promotion.decide import ALIASES, differences, number_of, state_of
from tasks.promotion.decisions import LOG, Decision, lease, read_lines, read_log, read_refs
from tasks.promotion.marks import stale
from tasks.promotion.remote import exchange
from tasks.registry.reading import Reader

REPAIR: Final = "`compactlm history --repair` puts it back to what was decided"


class Drift(NamedTuple):
    """Where the registry is not what was decided, a sentence each, and what to do; empty where a sentence says that itself."""

    faults: list[str]
    advice: str

    def sentence(self, name: str) -> str:
        """Return all of it about a model as one message."""
        words = "; ".join(self.faults)
        return f"{name}: {words}. {self.advice}" if self.advice else words


def registry_faults(tracker: Reader, name: str) -> list[str]:
    """Return where aliases or a copy of the log are not what was decided, a sentence each."""
    return registry_drift(tracker, name).faults


def registry_drift(tracker: Reader, name: str) -> Drift:
    """Return where aliases or a copy of the log are not what was decided, or why this clone cannot know it.

    A promotion that is under way on this machine is waited for.
    """
    workspace = tracker.workspace
    with lease(workspace):
        try:
            exchange(workspace)
            log = read_log(workspace)
        except UserError as error:
            return Drift([str(error)], "")
        if unknown := stale(tracker, name, log):
            return Drift([unknown.sentence], "")
        wrong = _of_aliases(tracker, name, log) if any(entry["model"] == name for entry in log) else []
        lines, refs = len(read_lines(workspace)), len(read_refs(workspace))
        if lines != refs:
            wrong.append(f"{LOG} has {lines} decisions, the Git refs have {refs}")
        return Drift(wrong, REPAIR)


def _of_aliases(tracker: Reader, name: str, log: Sequence[Decision]) -> list[str]:
    state = state_of(log, name)
    wrong = differences(tracker, name, state)
    for alias in ALIASES:
        decided = state[alias]
        # MLflow takes the aliases of a deleted version away without a word.
        if decided is not None and number_of(tracker, name, decided) is None:
            wrong.append(
                f"{alias} is version {decided['version']} by the log, and no registered version has its weights "
                f"({decided['model_sha256'][:12]})"
            )
    return wrong
