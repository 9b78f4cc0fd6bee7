"""Checks of dvc.lock against the receipts. A workspace may have gone on: then its lock tells of a later execution."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.artifacts import receipt_path
from tasks.audit.evidence import Evidence
from tasks.errors import ParamsError
from tasks.lineage.chain import Receipt, agree, completed, md5_of, param, plain, with_value
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.running.dvc import read_lock
from tasks.running.objects import md5

NAME = "dvc.lock"


def read(workspace: Path) -> tuple[Mapping[str, Any], list[Finding]]:
    """Return the content of dvc.lock, and a failure when it cannot be read."""
    try:
        return read_lock(workspace), []
    except ParamsError as error:
        return {}, [failed(NAME, NAME, "a readable file", str(error), "it was changed by hand")]


def whose_receipts(evidence: Evidence) -> list[Finding]:
    """Return whether receipt, dvc.lock and the workspace's copy agree on which execution a stage's files are from.

    Two of the three outvote the third, which is named.
    """
    checks: list[Finding] = []
    for stage in evidence.stages:
        recorded, locked = md5(evidence.recorded[stage]), evidence.locked(stage)
        here = md5(evidence.here[stage]) if stage in evidence.here else None
        if locked is None:
            checks.append(unknown(NAME, stage, "dvc.lock has no entry of this stage; `dvc repro` or Git has it"))
        elif here not in (None, locked, recorded):
            sentence = "the receipt was changed since the stage wrote it"
            checks.append(failed("receipts", receipt_path(stage), locked, here, sentence))
        elif locked == recorded:
            continue
        elif here == recorded:
            sentence = "dvc.lock names another receipt than the one recorded, which lies in the workspace"
            checks.append(failed(NAME, stage, recorded, locked, sentence))
        elif here is None:
            checks.append(unknown(NAME, stage, "tells of another execution, whose receipt is not in the workspace"))
        else:
            checks.append(passed(NAME, stage, "the workspace has gone on to a later execution"))
    return checks


def entries(evidence: Evidence) -> list[Finding]:
    """Return whether dvc.lock says of each stage what its receipt says: command, params, inputs and outputs."""
    checks: list[Finding] = []
    for stage in evidence.current:
        entry = evidence.lock.get("stages", {}).get(stage)
        if entry is not None:
            try:
                findings = _entry(stage, evidence.receipts[stage], evidence.recorded[stage], entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                findings = [failed(NAME, stage, "an entry as DVC writes it", repr(error), "was changed by hand")]
            checks += whole(NAME, stage, findings, "says what the receipt says")
    return checks


def _entry(stage: str, receipt: Receipt, content: bytes, entry: Mapping[str, Any]) -> list[Finding]:
    command = shlex.join(shlex.split(str(entry.get("cmd", "")))[3:])  # after `python -m tasks`
    findings = compare(NAME, f"{stage}: cmd", shlex.join(receipt["command"]), command, "another command")
    for key, value in entry.get("params", {}).get("params.yaml", {}).items():
        recorded, locked = param(plain(receipt["params"]), key), plain(value)
        filled = param(completed(with_value(receipt["params"], key, value)), key)
        if not agree(recorded, locked, filled):
            sentence = "another value than the stage read"
            findings.append(failed(NAME, f"{stage}: params {key}", recorded, locked, sentence))
    for file in (file for role in ("deps", "outs") for file in entry.get(role, [])):
        path = str(file["path"])
        if path.startswith("tasks/"):
            continue  # code: compared with what Git recorded
        expected = md5(content) if path == receipt_path(stage) else md5_of(receipt, path)
        if expected is None:
            findings.append(unknown(NAME, path, f"the receipt of {stage} has no DVC digest of it"))
        else:
            sentence = f"dvc.lock and the receipt of {stage} differ"
            findings += compare(NAME, path, expected, file.get("md5"), sentence)
    return findings
