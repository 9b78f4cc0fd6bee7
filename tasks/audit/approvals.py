"""Checks on what people signed: the approvals that decisions hold, and the files in which answers are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tasks.audit.decisions import BrokenObjectError, file_then, params_then
from tasks.errors import UserError
from tasks.lineage.checks import Finding, failed, passed, unknown, whole
from tasks.promotion.answers import FOLDER, answer_path, read_answer
from tasks.promotion.approval import approval_faults, canonical
from tasks.promotion.approvers import authors_of, policy_of
from tasks.promotion.decisions import Decision
from tasks.promotion.keys import signer
from tasks.registry.tracking import Tracker

NAME: Final = "approval"


def approvals(tracker: Tracker, log: Sequence[Decision], scratch: Path) -> list[Finding]:
    """Return whether the signed approvals of each decision about a model bear it out, by who might approve at its commit."""
    checks: list[Finding] = []
    for entry in log:
        subject = f"decision {entry['number']}"
        try:
            policy = _policy_then(tracker.workspace, entry, scratch)
        except BrokenObjectError as error:
            checks.append(failed(NAME, subject, "files that Git can read", "a broken one", str(error)))
            continue
        if isinstance(policy, str):
            checks.append(unknown(NAME, subject, policy))
            continue
        authors = None
        if entry["verdict"].get("approval") is not None and tracker.has_run(entry["candidate"]["run_id"]):
            authors = authors_of(tracker, entry["candidate"]) or None
        broken = approval_faults(entry, policy, authors)
        findings = [failed(NAME, subject, "signed approvals", "none that hold", words) for words in broken]
        sentence = "its signatures and approvals hold" if policy else "no approval was asked for"
        checks += whole(NAME, subject, findings, sentence)
    return checks


def answer_files(workspace: Path, log: Sequence[Decision]) -> list[Finding]:
    """Return whether each file of an answer to a proposal in the log holds what the owner of its key signed.

    Whether it counts is another question.
    """
    records = [entry["verdict"]["approval"] for entry in log if entry["verdict"].get("approval")]
    folders = sorted({str(record.get("digest"))[:16] for record in records})
    paths = [path for folder in folders for path in sorted((workspace / FOLDER / folder).glob("*.json"))]
    return [_answer_file(path, path.relative_to(workspace).as_posix()) for path in paths]


def _answer_file(path: Path, subject: str) -> Finding:
    signed = read_answer(path)
    if signed is None or not set(signed["statement"]) >= {"proposal", "decision", "key"}:
        return failed(NAME, subject, "a signed statement", "none", "is not a signed statement any more")
    statement = signed["statement"]
    if signer(canonical(statement), str(signed["signature"])) != statement.get("key"):
        expected, sentence = "a signature of these words by this key", "was changed after it was signed"
        return failed(NAME, subject, expected, "another", sentence)
    if subject != answer_path(statement).as_posix():
        return failed(NAME, subject, answer_path(statement).as_posix(), subject, "is the answer to another proposal")
    return passed(NAME, subject, "was signed by the key it names")


def _policy_then(workspace: Path, entry: Decision, scratch: Path) -> dict[str, Any] | str | None:
    """Return who might approve at the commit of a decision, None if nobody was asked, or why that cannot be known."""
    params = params_then(workspace, entry, scratch)
    if isinstance(params, str):
        return params if entry["verdict"].get("approval") is not None else None
    asked = params.promotion.approval
    if asked is None:
        return None
    folder = Path(tempfile.mkdtemp(dir=scratch))
    if isinstance(asked.approvers, str):
        content = file_then(workspace, entry, asked.approvers, scratch)
        if content is None:
            return f"Git cannot give {asked.approvers} of commit {entry['git']['commit']}"
        (folder / asked.approvers).parent.mkdir(parents=True, exist_ok=True)
        (folder / asked.approvers).write_bytes(content)
    try:
        return policy_of(asked, folder)
    except UserError as error:
        return str(error)
