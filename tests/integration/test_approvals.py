"""Promotions that people must sign, by the command line: from proposal to champion, also in clones without a registry."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.files import write_json
from tasks.params.file import apply_overrides, load_params
from tasks.promotion.answers import read_statements
from tasks.promotion.approval import approval_faults, digest_of
from tasks.promotion.approvers import policy_of
from tasks.promotion.decide import Request, decide
from tasks.promotion.decisions import read_log
from tasks.promotion.gate import judge_promotion
from tasks.promotion.keys import own_public_key
from tasks.promotion.proposals import with_approval
from tasks.registry.tracking import Tracker
from tests.integration import test_cli_registry as story
from tests.integration.conftest import shell
from tests.signers import make_key, signed_by

NAME = story.NAME
registry_template, project, compactlm = story.registry_template, story.project, story.compactlm
PEOPLE = ("ada@example.org", "bob@example.org", "carol@example.org")
ADA, BOB, CAROL = PEOPLE


def commit(project: Path, words: str) -> None:
    shell(project, "git", "add", "-A", "--", ":!.compactlm")
    shell(project, "git", "-c", "user.name=Carol", "-c", f"user.email={CAROL}", "commit", "-qm", words)


@pytest.fixture
def keys(project: Path, tmp_path: Path) -> dict[str, Path]:
    """Let the project ask for one approval, by anybody but the author Carol, and return everybody's key, Eve's too."""
    made = {name: make_key(tmp_path / name) for name in (*PEOPLE, "eve")}
    lines = "".join(f"{name} {own_public_key(made[name])} laptop\n" for name in PEOPLE)
    (project / "approvers").write_text(f"# who may approve\n\n{lines}", encoding="utf-8")
    path = project / "params.yaml"
    asked = "promotion.approval={quorum: 1, not_author: true, ttl_hours: 72, approvers: approvers}"
    path.write_text(apply_overrides(path.read_text(encoding="utf-8"), [asked], path.name), encoding="utf-8")
    commit(project, "approvals")
    tracker, head = Tracker(project, NAME), shell(project, "git", "rev-parse", "HEAD").strip()
    for version in tracker.versions(NAME):
        evidence = tracker.local_file(version.tags["compactlm.run_id"], "evidence")
        assert evidence is not None
        (evidence.parent / "receipts").mkdir()
        write_json(evidence.parent / "receipts/gate@r.json", {"git": {"commit": head}})
    tracker.set_alias(NAME, "challenger", "1")
    return made


def last(project: Path) -> dict[str, Any]:
    return read_log(project)[-1]


def test_a_promotion_waits_for_people_and_the_log_keeps_what_they_signed(
    project: Path, compactlm: Any, keys: dict[str, Path]
) -> None:
    asked = compactlm("promote", "challenger")
    assert asked.code == 2
    assert f"waiting for 1 of {ADA}, {BOB}, {CAROL}" in asked.err
    assert "an approver can run `compactlm approve" in asked.err
    assert "champion" not in Tracker(project, NAME).aliases(NAME)
    told = compactlm("history")
    assert "promote version 1 (r1): waiting, by Ada" in told.out
    assert "open until" in told.out
    again = compactlm("promote", "challenger")
    assert (again.code, "0 of 1 approvals" in again.err) == (2, True)
    assert len(read_log(project)) == 1  # asking again decides nothing

    assert "is the author of the model's commit" in compactlm("approve", "--key", str(keys[CAROL])).err
    assert "is not the key of an approver" in compactlm("approve", "--key", str(keys["eve"])).err
    given = compactlm("approve", f"{NAME}@challenger", "--key", str(keys[ADA]), "--reason", "as good and half the size")
    assert (given.code, f"{ADA}: approve r1" in given.out) == (0, True)
    assert compactlm("promote", "challenger").code == 0
    assert Tracker(project, NAME).aliases(NAME)["champion"] == "1"

    log = json.loads(compactlm("history", "--json").out)["decisions"]
    policy = policy_of(load_params(project / "params.yaml").promotion.approval, project)  # type: ignore[arg-type]
    assert [approval_faults(one, policy, ["Carol", CAROL]) for one in log] == [[], []]
    assert f"approve by {ADA}" in compactlm("history").out
    assert compactlm("history", "--check").code == 0
    assert compactlm("rollback", "--reason", "x").code == 2  # there is nothing before it


def test_a_reject_settles_a_proposal_and_a_change_makes_another(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    compactlm("promote", "3")
    assert compactlm("reject", "--key", str(keys[BOB])).code == 2  # no reason
    assert compactlm("approve", f"{NAME}/3", "--key", str(keys[ADA])).code == 0
    assert compactlm("reject", f"{NAME}/3", "--reason", "slow on long texts", "--key", str(keys[BOB])).code == 0
    refused = compactlm("promote", "3")
    assert (refused.code, f"rejected by {BOB}: slow on long texts" in refused.err) == (2, True)
    assert approval_faults(last(project)) == []

    compactlm("promote", "3")
    assert last(project)["verdict"]["approval"]["state"] == "waiting"
    assert compactlm("approve", "--key", str(keys[ADA])).code == 0
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace('"max": 0.25', '"max": 0.26'), encoding="utf-8")
    assert "params.yaml is not as it is committed" in compactlm("promote", "3").err
    commit(project, "other rules")
    assert "anew, because since the proposal before this has changed: rules" in compactlm("promote", "3").err
    assert compactlm("approve", "--key", str(keys[ADA])).code == 0
    assert compactlm("promote", "3").code == 0
    outcomes = [(one["outcome"], (one["verdict"]["approval"] or {}).get("state")) for one in read_log(project)]
    assert outcomes == [
        ("refused", "waiting"),
        ("refused", "rejected"),
        ("refused", "waiting"),
        ("refused", None),
        ("refused", "waiting"),
        ("done", "approved"),
    ]


def test_answers_that_do_not_count_are_told_and_change_nothing(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    assert "waiting for approval: none" in compactlm("approve", "--key", str(keys[ADA])).err
    compactlm("promote", "1")
    proposal = last(project)["verdict"]["approval"]["proposal"]
    folder = project / "approvals" / digest_of(proposal)[:16]
    folder.mkdir(parents=True)
    at = proposal["proposed_at"]
    write_json(folder / "1.json", signed_by(keys["eve"], proposal, ADA, at=at, key=own_public_key(keys[ADA])))
    write_json(folder / "2.json", signed_by(keys[CAROL], proposal, CAROL, at=at))
    write_json(folder / "3.json", signed_by(keys[BOB], {**proposal, "candidate": "0" * 64}, BOB, at=at))
    write_json(folder / "4.json", signed_by(keys[BOB], proposal, BOB, at="2020-01-01T00:00:00Z"))
    (folder / "5.json").write_text("{", encoding="utf-8")
    told = compactlm("promote", "1")
    assert told.code == 2
    for words in (
        "0 of 1 approvals",
        f"{ADA}: the signature is not",
        f"{CAROL}: is the author",
        f"{BOB}: signed another",
        f"{BOB}: signed at 2020",
        "5.json is not a signed statement",
    ):
        assert words in told.err
    assert "champion" not in Tracker(project, NAME).aliases(NAME)
    printed = compactlm("approve", "--print", "--key", str(keys[BOB]))
    assert json.loads(printed.out)["statement"]["decision"] == "approve"
    assert len(read_statements(project, digest_of(proposal))[0]) == 4  # --print writes no file


def test_two_people_answer_in_clones_of_their_own_and_git_merges_it(
    project: Path, compactlm: Any, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("quorum: 1", "quorum: 2"), encoding="utf-8")
    commit(project, "two people")
    compactlm("promote", "1")
    commit(project, "a proposal")
    for person in (ADA, BOB):
        clone = tmp_path / f"clone of {person}"
        shell(tmp_path, "git", "clone", "-q", str(project), str(clone))
        monkeypatch.chdir(clone)
        assert "no registry here knows this alias" in compactlm("approve", f"{NAME}@challenger", "--key", str(keys[person])).err
        assert compactlm("approve", f"{NAME}/1", "--key", str(keys[person])).code == 0
        commit(clone, f"{person} approves")
    monkeypatch.chdir(project)
    for person in (ADA, BOB):
        who = ["-c", "user.name=Carol", "-c", f"user.email={CAROL}"]
        shell(project, "git", *who, "pull", "-q", "--no-rebase", "--no-edit", str(tmp_path / f"clone of {person}"), "main")
    assert compactlm("promote", "1").code == 0
    assert last(project)["verdict"]["rules"][-1]["sentence"] == f"approval: by {ADA}, {BOB}"
    commit(project, "decided")
    shutil.rmtree(project / "approvals")  # what was signed is in the log as well
    assert approval_faults(last(project)) == []


def test_without_a_known_author_nobody_can_be_said_not_to_be_it(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    tracker = Tracker(project, NAME)
    run = tracker.versions(NAME)[0].tags["compactlm.run_id"]
    path = tracker.local_file(run, "receipts/gate@r.json")
    assert path is not None
    write_json(path, {"git": {"commit": "0" * 40}})
    told = compactlm("promote", "1")
    assert (told.code, "the author of the model's commit is not known" in told.err) == (2, True)


def test_an_expired_proposal_is_made_anew(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    tracker, params = Tracker(project, NAME), load_params(project / "params.yaml")
    four_days_ago = datetime.now(UTC) - timedelta(days=4)
    judge = with_approval(partial(judge_promotion, tracker, params), tracker, params, NAME, four_days_ago)
    decide(tracker, NAME, Request("promote", "1", "", "Ada"), judge)
    late = compactlm("approve", "--key", str(keys[ADA]))
    assert (late.code, "this answer does not count" in late.err, "not between" in late.err) == (2, True, True)
    assert "anew, because the proposal before expired at" in compactlm("promote", "1").err
    assert compactlm("approve", "--key", str(keys[ADA])).code == 0
    assert compactlm("promote", "1").code == 0
