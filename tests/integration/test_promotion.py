"""Promotion: one champion whatever dies or races, a log that cannot be changed unseen, aliases that follow from it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ResourceError, UserError
from tasks.lineage import loaded
from tasks.params.file import load_params
from tasks.promotion import decide as promotion
from tasks.promotion import decisions
from tasks.promotion.answers import find_proposal, keep_answer, signed_answer
from tasks.promotion.approval import approval_faults
from tasks.promotion.approvers import policy_of
from tasks.promotion.decide import Request, decide, drift, reconcile, state_of
from tasks.promotion.decisions import faults, read_lines, read_log, read_refs, sealed
from tasks.promotion.keys import own_public_key
from tasks.registry.tracking import Tracker
from tests.integration.conftest import shell
from tests.integration.promotions import STEPS
from tests.marks import quick
from tests.signers import make_key

NAME = "toy"
SCRIPT = Path(__file__).with_name("promotions.py")
ROOT = Path(__file__).resolve().parents[2]
PASS = {"verdict": "pass", "sentence": "fine", "rules": []}


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """Return a Git project with a registry of 50 versions without bytes, none of them champion."""
    folder = tmp_path_factory.mktemp("registry") / "project"
    (folder / ".compactlm/mlflow").mkdir(parents=True)
    shutil.copyfile(store_template, folder / ".compactlm/mlflow/mlflow.db")
    shell(folder, "git", "init", "-q", "-b", "main")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = Tracker(folder, NAME)
        tracker.client.create_registered_model(NAME)
        for number in range(1, 51):
            tags = {"model_sha256": f"{number:064x}", "round": f"r{number}", "model_id": "", "run_id": "", "teacher_run_id": ""}
            every = {f"compactlm.{key}": value for key, value in tags.items()}
            tracker.client.create_model_version(NAME, f"file:///none/{number}", tags=every)
    return folder


@pytest.fixture
def tracker(tmp_path: Path, registry_template: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracker(Path(shutil.copytree(registry_template, tmp_path / "project")), NAME)


def ask(version: str, kind: str = "promote", reason: str = "") -> Request:
    return Request(kind, version, reason, "tester")


def promote(tracker: Tracker, version: str, verdict: dict[str, Any] | None = None) -> dict[str, Any]:
    return decide(tracker, NAME, ask(version), lambda *_: verdict or PASS)


class Nursery:
    """A process that promotes in children of its own, in the store of each project or in one that is given."""

    def __init__(self, store: dict[str, str] | None = None) -> None:
        env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"} | (store or {})
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, tracker: Tracker, commands: list[list[str]]) -> list[tuple[int, str]]:
        """Return exit code and words of promotions of `[version, options...]` that all run at once."""
        return self.run_all([[str(tracker.workspace), NAME, *one] for one in commands])

    def run_all(self, commands: list[list[str]]) -> list[tuple[int, str]]:
        """Return the same of promotions of `[workspace, model, version, options...]`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(commands) + "\n")
        self.process.stdin.flush()
        return [(code, words) for code, words in json.loads(self.process.stdout.readline())]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.communicate()


def check(tracker: Tracker) -> list[dict[str, Any]]:
    """Return the log after asserting that it is intact, both copies agree, and the aliases follow from it."""
    log = read_log(tracker.workspace)
    assert faults(log) == []
    assert read_refs(tracker.workspace) == read_lines(tracker.workspace) == log
    state = state_of(log, NAME)
    wanted = {alias: one["version"] for alias, one in state.items() if one is not None}
    assert tracker.aliases(NAME) == wanted
    assert drift(tracker, NAME) == []
    if log:  # the page of the version shows the newest decision on it
        page = tracker.client.get_model_version(NAME, log[-1]["candidate"]["version"]).description
        assert page.startswith(f"## Decision {len(log)}: ")
    champion = None
    for entry in log:  # every decision starts from what the one before it left: no update is lost
        assert entry["before"]["champion"] == champion
        champion = entry["champion"]
    return log


def test_promotions_follow_each_other(tracker: Tracker) -> None:
    promote(tracker, "3")
    entry = promote(tracker, "5")
    assert tracker.aliases(NAME) == {"champion": "5", "previous": "3"}
    assert (entry["number"], entry["outcome"], entry["actor"]) == (2, "done", "tester")
    assert entry["before"]["champion"]["version"] == "3"
    assert len(check(tracker)) == 2
    with pytest.raises(UserError, match="is champion already"):
        promote(tracker, "5")
    with pytest.raises(UserError, match="there is no version 99"):
        promote(tracker, "99")


@pytest.mark.parametrize("verdict", ["fail", "hold", "nonsense", ""])
def test_what_is_not_a_pass_is_recorded_and_changes_nothing(tracker: Tracker, verdict: str) -> None:
    promote(tracker, "1")
    entry = promote(tracker, "2", {**PASS, "verdict": verdict, "sentence": "too bad"})
    assert entry["outcome"] == "refused"
    assert tracker.aliases(NAME) == {"champion": "1"}
    assert [one["outcome"] for one in check(tracker)] == ["done", "refused"]


def test_a_champion_that_moved_meanwhile_is_judged_against_anew(tracker: Tracker) -> None:
    promote(tracker, "1")
    seen: list[str | None] = []

    def slow(_candidate: dict[str, Any], champion: dict[str, Any] | None) -> dict[str, Any]:
        seen.append(champion["version"] if champion else None)
        if len(seen) == 1:  # somebody without our lease decides while we judge
            log = read_log(tracker.workspace)
            other = promotion.describe(tracker, NAME, "9")
            taken = promotion.content(NAME, ask("9"), other, PASS, log)
            assert decisions.commit(tracker.workspace, sealed(taken, log))
        return PASS

    decide(tracker, NAME, ask("2"), slow)
    assert seen == ["1", "9"]
    assert tracker.aliases(NAME) == {"champion": "2", "previous": "9"}
    assert len(check(tracker)) == 3


# `reconcile_locked` takes some steps as well, before the commit: of those the later calls, too.
KILLS = [(step, when, "1") for step in STEPS for when in ("before", "after")]
KILLS += [
    (step, when, call) for step, call in (("mirror", "2"), ("point", "2"), ("differences", "3")) for when in ("before", "after")
]


@pytest.mark.parametrize(("step", "when", "call"), quick(KILLS, [(step, "after", "1") for step in STEPS]))
def test_a_kill_at_any_step_leaves_the_old_champion_or_the_new_one(
    tracker: Tracker, nursery: Nursery, step: str, when: str, call: str
) -> None:
    promote(tracker, "1")
    promote(tracker, "2")
    [(code, words)] = nursery.run(tracker, [["3", "--kill", step, when, call]])
    assert code == -9, words
    reconcile(tracker, NAME)
    log = check(tracker)
    committed = STEPS.index(step) > STEPS.index("commit") or (step, when) == ("commit", "after")
    if step in ("mirror", "differences"):
        committed = call != "1"
    assert len(log) == (3 if committed else 2)
    assert tracker.aliases(NAME) == ({"champion": "3", "previous": "2"} if committed else {"champion": "2", "previous": "1"})
    assert reconcile(tracker, NAME) == []
    promote(tracker, "4")
    assert tracker.aliases(NAME)["champion"] == "4"
    check(tracker)


def race(tracker: Tracker, nursery: Nursery, processes: int) -> None:
    ends = nursery.run(tracker, [[str(number)] for number in range(1, processes + 1)])
    assert [end for end in ends if end[0] != 0] == []
    log = check(tracker)
    assert sorted(int(one["candidate"]["version"]) for one in log) == list(range(1, processes + 1))
    assert sorted(int(words) for _, words in ends) == list(range(1, processes + 1))


def test_promotions_at_once_are_decided_one_after_another(tracker: Tracker, nursery: Nursery) -> None:
    race(tracker, nursery, 4)


@pytest.mark.slow
def test_fifty_promotions_at_once(tracker: Tracker, nursery: Nursery) -> None:
    race(tracker, nursery, 50)


def ask_for_approval(tracker: Tracker, key: Path) -> None:
    """Let the project ask for the approval of one person, who has a key."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    asked = f"approval: {{quorum: 1, not_author: false, ttl_hours: 1, approvers: {{ada: {own_public_key(key)}}}}}\n"
    path = tracker.workspace / "params.yaml"
    path.write_text(re.sub(r"approval: null.*\n", asked, text), encoding="utf-8")
    shell(tracker.workspace, "git", "add", "params.yaml")
    shell(tracker.workspace, "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "rules")


def approve(tracker: Tracker, key: Path) -> None:
    proposal = find_proposal(tracker.workspace, NAME, {}, None)
    keep_answer(tracker.workspace, signed_answer(proposal, "approve", "", key))


@pytest.mark.parametrize("step", quick(["content", "commit", "point", "mark"], ["commit"]))
def test_a_kill_at_a_step_of_an_approved_promotion(tracker: Tracker, nursery: Nursery, tmp_path: Path, step: str) -> None:
    promote(tracker, "1")
    key = make_key(tmp_path / "ada")
    ask_for_approval(tracker, key)
    [(code, words)] = nursery.run(tracker, [["3", "--approval", "--kill", step, "after", "1"]])
    assert code == -9, words
    reconcile(tracker, NAME)
    if len(check(tracker)) == 1:  # it died before the proposal was recorded
        assert nursery.run(tracker, [["3", "--approval"]])[0][0] == 0
    [(code, words)] = nursery.run(tracker, [["3", "--approval"]])
    assert (code, "waiting for approval" in words) == (1, True)
    assert len(check(tracker)) == 2
    assert tracker.aliases(NAME)["champion"] == "1"

    approve(tracker, key)
    [(code, words)] = nursery.run(tracker, [["3", "--approval", "--kill", step, "before", "1"]])
    assert code == -9, words
    reconcile(tracker, NAME)
    if len(check(tracker)) == 2:
        assert nursery.run(tracker, [["3", "--approval"]])[0][0] == 0
    log = check(tracker)
    assert [one["outcome"] for one in log] == ["done", "refused", "done"]
    assert tracker.aliases(NAME) == {"champion": "3", "previous": "1"}
    policy = policy_of(load_params(tracker.workspace / "params.yaml").promotion.approval, tracker.workspace)  # type: ignore[arg-type]
    assert [approval_faults(one, policy, []) for one in log[1:]] == [[], []]


def test_of_many_who_carry_out_one_approval_one_does(tracker: Tracker, nursery: Nursery, tmp_path: Path) -> None:
    key = make_key(tmp_path / "ada")
    ask_for_approval(tracker, key)
    nursery.run(tracker, [["3", "--approval"]])
    approve(tracker, key)
    ends = nursery.run(tracker, [["3", "--approval"]] * 6)
    assert sorted(code for code, _ in ends) == [0, 1, 1, 1, 1, 1]
    assert all("is champion already" in words for code, words in ends if code)
    assert len(check(tracker)) == 2


def test_of_two_clones_that_take_one_number_the_remote_refuses_one(tracker: Tracker, tmp_path: Path) -> None:
    promote(tracker, "1")
    remote, refs = tmp_path / "remote.git", "refs/compactlm/*:refs/compactlm/*"
    shell(tmp_path, "git", "init", "-q", "--bare", str(remote))
    other = Tracker(Path(shutil.copytree(tracker.workspace, tmp_path / "other")), NAME)
    promote(tracker, "2")
    promote(other, "3")
    shell(tracker.workspace, "git", "push", "-q", str(remote), refs)
    pushed = subprocess.run(["git", "push", str(remote), refs], cwd=other.workspace, capture_output=True, text=True, check=False)
    assert pushed.returncode != 0
    assert f"! [rejected]        {decisions.REFS}/00000002" in pushed.stderr
    held = shell(remote, "git", "for-each-ref", "--format=%(objectname)", "refs/compactlm").split()
    mine = shell(tracker.workspace, "git", "for-each-ref", "--format=%(objectname)", "refs/compactlm").split()
    assert held == mine
    # The one who came second fetches, which replaces the ref of a blob without asking; the lines still tell the other story.
    shell(other.workspace, "git", "fetch", "-q", str(remote), refs)
    with pytest.raises(UserError, match="tell different stories"):
        read_log(other.workspace)
    (other.workspace / "decisions.jsonl").unlink()
    with pytest.raises(UserError, match="decision 2 was made twice") as made_twice:  # its own store stands by its own decision
        reconcile(other, NAME, repair=True)
    reconcile(other, NAME, repair=True, drop=str(made_twice.value).rpartition(" ")[2])
    promote(other, "3")
    shell(other.workspace, "git", "push", "-q", str(remote), refs)
    assert [one["candidate"]["version"] for one in check(other)] == ["1", "2", "3"]


def test_one_of_many_gets_a_number_even_without_the_lease(tracker: Tracker) -> None:
    entries = [sealed({"model": NAME, "actor": f"number {one}"}, []) for one in range(8)]
    with ThreadPoolExecutor(len(entries)) as pool:
        won = list(pool.map(lambda entry: decisions.commit(tracker.workspace, entry), entries))
    assert won.count(True) == 1
    assert read_refs(tracker.workspace) == [entries[won.index(True)]]


def test_an_alias_moved_by_hand_is_found_and_put_back(tracker: Tracker) -> None:
    promote(tracker, "1")
    promote(tracker, "2")
    tracker.set_alias(NAME, "champion", "7")
    assert drift(tracker, NAME) == ["alias champion points at version 7; the log says version 2"]
    with pytest.raises(UserError, match="moved without a decision"):
        promote(tracker, "3")
    assert len(read_log(tracker.workspace)) == 2
    assert reconcile(tracker, NAME, repair=True) == ["set right: alias champion points at version 7; the log says version 2"]
    tracker.delete_alias(NAME, "champion")
    assert "points at nothing" in drift(tracker, NAME)[0]
    reconcile(tracker, NAME, repair=True)
    check(tracker)


def edit(workspace: Path, change: Any) -> None:
    path = workspace / "decisions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))


def _reworded(lines: list[str]) -> list[str]:
    return [lines[0].replace("tester", "somebody"), *lines[1:]]


@pytest.mark.parametrize(
    "change",
    [
        _reworded,
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: ["not json\n", *lines[1:]],
    ],
    ids=["reworded", "first taken out", "reordered", "middle taken out", "doubled", "garbled"],
)
def test_a_changed_log_stops_promotions(tracker: Tracker, change: Any) -> None:
    for version in ("1", "2", "3"):
        promote(tracker, version)
    edit(tracker.workspace, change)
    with pytest.raises(UserError, match=r"decisions\.jsonl"):
        promote(tracker, "4")
    assert tracker.aliases(NAME)["champion"] == "3"


def test_a_forged_chain_of_lines_is_not_that_of_the_refs(tracker: Tracker) -> None:
    promote(tracker, "1")
    entry = read_log(tracker.workspace)[0]
    forged = sealed(
        {key: value for key, value in entry.items() if key not in ("sha256", "number", "previous_sha256")}
        | {"actor": "somebody"},
        [],
    )
    assert faults([forged]) == []
    (tracker.workspace / "decisions.jsonl").write_text(json.dumps(forged) + "\n")
    with pytest.raises(UserError, match="tell different stories"):
        read_log(tracker.workspace)


def test_either_copy_of_the_log_can_be_lost(tracker: Tracker) -> None:
    for version in ("1", "2"):
        promote(tracker, version)
    log = check(tracker)
    (tracker.workspace / "decisions.jsonl").unlink()
    assert reconcile(tracker, NAME) == ["2 decisions written to the other copy of the log"]
    assert check(tracker) == log
    for entry in log:  # a clone brings the lines only
        shell(tracker.workspace, "git", "update-ref", "-d", f"{decisions.REFS}/{entry['number']:08d}")
    reconcile(tracker, NAME)
    assert check(tracker) == log


def test_a_line_cut_short_is_written_again(tracker: Tracker) -> None:
    for version in ("1", "2"):
        promote(tracker, version)
    path = tracker.workspace / "decisions.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    reconcile(tracker, NAME)
    assert len(check(tracker)) == 2


def test_without_git_nothing_is_decided(tracker: Tracker) -> None:
    shutil.rmtree(tracker.workspace / ".git")
    with pytest.raises(UserError, match="recorded in Git"):
        promote(tracker, "1")
    assert tracker.aliases(NAME) == {}


def test_code_that_is_no_longer_there_decides_nothing(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    at_import = {**loaded.AT_IMPORT, "tasks/gates/judge.py": "what lay there when this process began"}
    monkeypatch.setattr(loaded, "AT_IMPORT", at_import)
    with pytest.raises(UserError, match=r"not decided: tasks/gates/judge.py changed since this command began"):
        promote(tracker, "1")
    assert read_log(tracker.workspace) == []


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Let no process from here write a byte to a file, as on a full disk; whoever writes down results can again after it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_leaves_the_log_whole(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = promote(tracker, "1")
    (tracker.workspace / decisions.LOG).unlink()
    monkeypatch.setattr(decisions, "PATIENCE_SECONDS", 0.0)
    with no_room():
        with pytest.raises(ResourceError, match=r"decisions.jsonl: cannot be written .*; Git has the decisions"):
            decisions.mirror(tracker.workspace, [entry])
        with pytest.raises(ResourceError, match="not decided: Git cannot make refs/compactlm/decisions/00000002"):
            decisions.commit(tracker.workspace, sealed({"model": NAME}, [entry]))
    assert read_refs(tracker.workspace) == [entry]
