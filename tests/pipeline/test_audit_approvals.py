"""Approvals of a real promotion: honest ones pass the audit, forged ones do not, even if the whole log is made anew."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.audit.walk import audit
from tasks.promotion.decisions import read_refs
from tasks.promotion.keys import own_public_key
from tests.marks import quick
from tests.pipeline.attacks import git_object
from tests.pipeline.conftest import Command
from tests.pipeline.forgery import forge_log
from tests.signers import make_key
from tests.tampering import changed, replaced
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

ADA = "ada@example.org"
RULES = "[{metric: accuracy, set: test, versus: champion, max_drop: 0.9}]"
APPROVAL = "{quorum: 1, not_author: true, ttl_hours: 72, approvers: approvers}"


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def approved(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project after a promotion of version 2 that one person approved: decision 2 asks, decision 3 is done."""
    folder = tmp_path_factory.mktemp("approved")
    project, key = finished.copy(folder / "project"), make_key(folder / "key")
    (project.folder / "approvers").write_text(f"{ADA} {own_public_key(key)}\n", encoding="utf-8")
    project.set(f"promotion={{gates: {RULES}, approval: {APPROVAL}}}")
    project.shell("git", "add", "-A")
    project.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "approvals")
    for words, code in ((["promote", "2"], 2), (["approve", "--key", str(key)], 0), (["promote", "2"], 0)):
        done = project.compactlm(*words)
        assert done.returncode == code, done.stderr
    return project


def _statement(log: list[dict[str, Any]]) -> dict[str, Any]:
    statement: dict[str, Any] = log[2]["verdict"]["approval"]["statements"][0]
    return statement


def _other_signature(log: list[dict[str, Any]]) -> None:
    signed = _statement(log)
    place = len(signed["signature"]) // 2
    old = signed["signature"][place]
    signed["signature"] = signed["signature"][:place] + ("A" if old != "A" else "B") + signed["signature"][place + 1 :]


FORGERIES: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "signature": _other_signature,
    "signed words": lambda log: _statement(log)["statement"].update(reason="never said"),
    "no approval": lambda log: log[2]["verdict"].update(approval=None),
    "no statement": lambda log: log[2]["verdict"]["approval"].update(statements=[]),
    "proposal": lambda log: log[2]["verdict"]["approval"]["proposal"].update(candidate="0" * 64),
    "who may approve": lambda log: log[2]["verdict"]["approval"]["proposal"]["policy"].update(quorum=0),
}


def test_an_approved_promotion_passes(approved: Project) -> None:
    report = audit(approved.folder, "tiny@champion")
    assert report["version"] == 2
    assert [check for check in report["checks"] if check["result"] != "PASS"] == []
    assert {"decision 3", "decision 2"} <= {check["subject"] for check in report["checks"] if check["name"] == "approval"}


def test_the_report_shows_the_decisions_and_stays_what_the_stage_wrote(approved: Project, command: Command) -> None:
    before = approved.facts()
    code, printed, _ = command(approved, "report", "--json")
    answer = json.loads(printed)
    assert (code, answer["decisions"]) == (0, [1, 2, 3])
    page = Path(answer["path"]).read_text(encoding="utf-8")
    assert "r2 of this run is champion, as version 2, since decision 3" in page
    for words in (
        "Decision 1: first version 3 (r3): done",
        "Decision 2: promote version 2 (r2): waiting",
        "Decision 3: promote version 2 (r2): done",
        f"Approved and signed by {ADA} at ",
    ):
        assert words in page
    assert approved.facts() == before
    assert "Data and pipelines are up to date" in approved.dvc("status")


def _answer(project: Path) -> Path:
    [path] = project.glob("approvals/*/approve-*.json")
    return path


def _in_signature(path: Path) -> contextlib.AbstractContextManager[None]:
    """One letter of a signature in a file."""
    text = path.read_text(encoding="utf-8")
    letter = text[text.index("BEGIN SSH SIGNATURE") + 100]
    start = text[: text.index("BEGIN SSH SIGNATURE") + 100]
    other = "A" if letter != "A" else "B"
    return changed(path, (start + other + text[len(start) + 1 :]).encode())


TAMPERED: dict[str, tuple[Callable[[Path], contextlib.AbstractContextManager[None]], str, str]] = {
    "approval": (lambda p: replaced(_answer(p), ADA, "eve@example.org"), "approval", "approvals/"),
    "form of an approval": (lambda p: replaced(_answer(p), "{", "["), "approval", "approvals/"),
    "signature": (lambda p: _in_signature(_answer(p)), "approval", "approvals/"),
    "signature in the log": (lambda p: _in_signature(p / "decisions.jsonl"), "decision log", "decisions.jsonl"),
    "approvers at the commit": (git_object("HEAD:approvers"), "approval", "decision 3"),
}


@pytest.mark.parametrize("what", quick(TAMPERED, ["approval", "approvers at the commit"]))
def test_a_change_of_what_people_signed_is_found_and_named(approved: Project, what: str) -> None:
    attack, check, subject = TAMPERED[what]
    with attack(approved.folder):
        report = audit(approved.folder, "tiny@champion")
    failures = [(failure["name"], failure["subject"]) for failure in report["checks"] if failure["result"] == "FAIL"]
    assert [failure for failure in failures if failure[0] == check and failure[1].startswith(subject)], failures


@pytest.mark.parametrize("what", quick(FORGERIES, ["signature", "who may approve"]))
def test_a_forged_approval_is_found_and_named(approved: Project, what: str) -> None:
    before = copy.deepcopy(read_refs(approved.folder))
    forge_log(approved.folder, FORGERIES[what])
    try:
        report = audit(approved.folder, "tiny@champion")
    finally:
        forge_log(approved.folder, lambda log: log.__setitem__(slice(None), json.loads(json.dumps(before))))
    failures = [(failure["name"], failure["subject"]) for failure in report["checks"] if failure["result"] == "FAIL"]
    assert ("approval", "decision 3") in failures, failures
