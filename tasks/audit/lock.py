"""Checks of dvc.lock against the receipts. A workspace may have gone on: then its lock tells of a later execution."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.lineage.chain import RECEIPTS_FOLDER, Receipt, Receipts, agree, completed, md5_of, param, plain, with_value
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.running.dvc import md5

Bytes = Mapping[str, bytes]


def current_stages(stages: Sequence[str], recorded: Bytes, lock: Mapping[str, Any], workspace: Bytes) -> list[str]:
    """Return the stages of which the workspace still holds this very execution, by its receipt or by dvc.lock."""
    return [
        stage
        for stage in stages
        if workspace.get(stage) == recorded[stage] or _locked(lock, stage) == md5(recorded[stage])
    ]


def whose_receipts(stages: Sequence[str], recorded: Bytes, lock: Mapping[str, Any], workspace: Bytes) -> list[Finding]:
    """Return whether receipt, dvc.lock and the workspace's copy agree on which execution a stage's files are from.

    Two of the three outvote the third, which is named.
    """
    checks: list[Finding] = []
    for stage in stages:
        path = f"{RECEIPTS_FOLDER}/{stage}.json"
        ours, locked = md5(recorded[stage]), _locked(lock, stage)
        here = md5(workspace[stage]) if stage in workspace else None
        if locked is None:
            checks.append(unknown("dvc.lock", stage, "dvc.lock has no entry of this stage; `dvc repro` or Git has it"))
        elif here not in (None, locked) and here != ours:
            sentence = "the receipt was changed since the stage wrote it"
            checks.append(failed("receipts", path, locked, here, sentence))
        elif here == ours and locked != ours:
            sentence = "dvc.lock names another receipt than the one recorded, which lies in the workspace"
            checks.append(failed("dvc.lock", stage, ours, locked, sentence))
        elif here is None and locked != ours:
            checks.append(
                unknown("dvc.lock", stage, "tells of another execution, whose receipt is not in the workspace")
            )
        elif locked != ours:
            checks.append(passed("dvc.lock", stage, "the workspace has gone on to a later execution"))
    return checks


def entries(stages: Sequence[str], receipts: Receipts, recorded: Bytes, lock: Mapping[str, Any]) -> list[Finding]:
    """Return whether dvc.lock says of each stage what its receipt says: command, params, inputs and outputs."""
    checks: list[Finding] = []
    for stage in stages:
        entry = lock.get("stages", {}).get(stage)
        if entry is not None:
            try:
                found = _entry(stage, receipts[stage], recorded[stage], entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                found = [failed("dvc.lock", stage, "an entry as DVC writes it", repr(error), "was changed by hand")]
            checks += whole("dvc.lock", stage, found, "says what the receipt says")
    return checks


def _entry(stage: str, receipt: Receipt, content: bytes, entry: Mapping[str, Any]) -> list[Finding]:
    command = shlex.join(shlex.split(str(entry.get("cmd", "")))[3:])  # after `python -m tasks`
    found = compare("dvc.lock", f"{stage}: cmd", shlex.join(receipt["command"]), command, "another command")
    for key, value in entry.get("params", {}).get("params.yaml", {}).items():
        recorded, told = param(plain(receipt["params"]), key), plain(value)
        filled = param(completed(with_value(receipt["params"], key, value)), key)
        if not agree(recorded, told, filled):
            subject = f"{stage}: params {key}"
            found.append(failed("dvc.lock", subject, recorded, told, "another value than the stage read"))
    for role in ("deps", "outs"):
        for one in entry.get(role, []):
            path = str(one["path"])
            if path == f"{RECEIPTS_FOLDER}/{stage}.json":
                expected: str | None = md5(content)
            elif path.startswith("tasks/"):
                continue  # code: compared with what Git recorded
            else:
                expected = md5_of(receipt, path)
            if expected is None:
                found.append(unknown("dvc.lock", path, f"the receipt of {stage} has no DVC digest of it"))
            else:
                found += compare(
                    "dvc.lock", path, expected, one.get("md5"), f"dvc.lock and the receipt of {stage} differ"
                )
    return found


def _locked(lock: Mapping[str, Any], stage: str) -> str | None:
    """Return the md5 dvc.lock has of a stage's receipt, None when it has no such entry or one that cannot be read."""
    try:
        outs = {one["path"]: str(one["md5"]) for one in lock["stages"][stage]["outs"]}
    except (KeyError, TypeError):
        return None
    return outs.get(f"{RECEIPTS_FOLDER}/{stage}.json")
