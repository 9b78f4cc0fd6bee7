"""Which versions stay, and what goes with those that do not: on two runs as MLflow would tell of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.git import create_ref, git, refs_of
from tasks.registry.keeping import Choice, Index, RoundRun, choose
from tasks.registry.runs import REFS
from tasks.registry.store import RegisteredVersion

NAME = "toy"


def sha(number: int) -> str:
    return f"{number:064x}"


def version(number: int, label: str) -> RegisteredVersion:
    tags = {"model_sha256": sha(number), "round": label, "model_id": f"m{number}", "run_id": f"c{number}"}
    return RegisteredVersion(NAME, str(number), "", f"c{number}", {f"compactlm.{key}": value for key, value in tags.items()})


def index(workspace: Path, one_teacher: bool = False) -> Index:
    """Return two runs of two rounds: versions 1 and 2 of P1, 3 and 4 of P2, each r2 pruned from its r1."""
    second = "t1" if one_teacher else "t2"
    rounds = [RoundRun(run, "r0", home, f"m-{run}", "", "") for run, home in (("t1", "P1"), ("t2", "P2"))]
    for number, label, home, parent, teacher in (
        (1, "r1", "P1", "teacher", "t1"),
        (2, "r2", "P1", "r1", "t1"),
        (3, "r1", "P2", "teacher", second),
        (4, "r2", "P2", "r1", second),
    ):
        rounds.append(RoundRun(f"c{number}", label, home, f"m{number}", parent, teacher))
    records = []
    for number, digest in ((1, "d1"), (2, "d2")):
        ref = f"{REFS}/{number:08d}"
        create_ref(workspace, ref, digest)
        records.append({"model": NAME, "inputs_digest": digest, "dvc_lock": f"lock of {digest}", "ref": ref})
    return Index(
        versions=[version(1, "r1"), version(2, "r2"), version(3, "r1"), version(4, "r2")],
        aliases={(NAME, "4"): ["challenger"]},
        rounds={run.run_id: run for run in rounds if not (one_teacher and run.run_id == "t2")},
        pipelines={"P1": {"teacher": "t1", "r1": "c1", "r2": "c2"}, "P2": {"teacher": second, "r1": "c3", "r2": "c4"}},
        digests={"P1": "d1", "P2": "d2"},
        records=records,
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def numbers(choice: Choice) -> list[str]:
    return [entry.version for entry in choice.going]


def test_a_whole_run_goes_with_its_teacher_and_its_record(workspace: Path) -> None:
    choice = choose(workspace, index(workspace), [], keep=1)
    assert numbers(choice) == ["1", "2"]  # 3 is what 4 was pruned from
    assert choice.reasons == {
        (NAME, "4"): ["@challenger", "among the newest"],
        (NAME, "3"): ["a version that stays descends from it"],
    }
    assert choice.runs == {"c1", "c2", "t1", "P1"}
    assert choice.models == {"m1", "m2", "m-t1"}
    assert choice.records == {refs_of(workspace, REFS)[f"{REFS}/00000001"]}


def test_a_teacher_of_a_run_that_stays_stays(workspace: Path) -> None:
    choice = choose(workspace, index(workspace, one_teacher=True), [], keep=1)
    assert (numbers(choice), choice.runs, choice.models) == (["1", "2"], {"c1", "c2", "P1"}, {"m1", "m2"})


DECISIONS: dict[str, dict[str, Any]] = {
    "a candidate": {"number": 7, "candidate": {"model_sha256": sha(2)}},
    "the champion before": {"number": 7, "before": {"champion": {"model_sha256": sha(2)}}},
    "a proposal": {"number": 7, "verdict": {"approval": {"proposal": {"candidate": sha(2)}}}},
}


@pytest.mark.parametrize("entry", DECISIONS.values(), ids=DECISIONS)
def test_whatever_a_decision_names_stays_with_what_it_descends_from(workspace: Path, entry: dict[str, Any]) -> None:
    choice = choose(workspace, index(workspace), [entry], keep=1)
    assert (numbers(choice), choice.runs, choice.models, choice.records) == ([], set(), set(), set())
    assert choice.reasons[NAME, "2"] == ["decision 7"]
    assert choice.reasons[NAME, "1"] == ["a version that stays descends from it"]


def test_of_a_run_one_round_may_go(workspace: Path) -> None:
    named = {"number": 1, "candidate": {"model_sha256": sha(1)}}
    choice = choose(workspace, index(workspace), [named], keep=1)
    assert (numbers(choice), choice.runs, choice.models, choice.records) == (["2"], {"c2"}, {"m2"}, set())


def test_what_approvals_and_the_tip_of_a_branch_name_stays(workspace: Path) -> None:
    (workspace / "approvals").mkdir()
    (workspace / "approvals/ada.json").write_text(f'{{"candidate": "{sha(2)}"}}', encoding="utf-8")
    assert numbers(choose(workspace, index(workspace), [], keep=1)) == []
    (workspace / "approvals/ada.json").unlink()
    (workspace / "dvc.lock").write_text("lock of d1", encoding="utf-8")
    git(workspace, "add", "-A")
    git(workspace, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x")
    git(workspace, "tag", "kept")
    (workspace / "dvc.lock").write_text("lock of d2", encoding="utf-8")
    choice = choose(workspace, index(workspace), [], keep=1)
    assert choice.reasons[NAME, "2"] == ["at the tip of a branch or tag"]
    assert (numbers(choice), choice.records) == ([], set())


@pytest.mark.parametrize(("keep", "going"), [(1, ["1", "2"]), (2, ["1", "2"]), (3, []), (9, [])])
def test_the_newest_stay(workspace: Path, keep: int, going: list[str]) -> None:
    assert numbers(choose(workspace, index(workspace), [], keep)) == going
