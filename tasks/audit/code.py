"""Checks of code and params: what Git recorded at a receipt's commit is what the stage ran with."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.files import listing_md5
from tasks.git import Snapshot, damage, has_commit, is_reachable, snapshot
from tasks.lineage.chain import LOCK, Receipt, Receipts, agree, completed, files_of, plain
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.running.dvc import md5

Key = tuple[str | None, str | None]
PARAMS = "params.yaml"
PIPELINE = "dvc.yaml"


def key_of(receipt: Receipt) -> Key:
    """Return what identifies the state of the code a stage ran with: commit and digest of the difference from it."""
    return receipt["git"]["commit"], receipt["git"]["diff_sha256"]


def snapshots(workspace: Path, receipts: Receipts, stages: Sequence[str], scratch: Path) -> dict[Key, Snapshot | None]:
    """Return the files that Git recorded for each state of the code; None where Git cannot give them."""
    found: dict[Key, Snapshot | None] = {}
    for stage in stages:
        state = receipts[stage]["git"]
        if key_of(receipts[stage]) not in found and state["commit"]:
            found[key_of(receipts[stage])] = snapshot(workspace, state["commit"], state.get("diff"), scratch)
    return found


def commits(workspace: Path, receipts: Receipts, stages: Sequence[str]) -> list[Finding]:
    """Return whether Git has the commits, something leads to them, and the kept differences are the recorded ones."""
    checks: list[Finding] = []
    for commit in sorted({str(receipts[stage]["git"]["commit"]) for stage in stages}):
        if commit == "None":
            checks.append(unknown("commit", "none", "a stage ran outside of Git, so nothing holds its code"))
        elif words := damage(workspace, commit):
            checks.append(failed("commit", commit, "a commit and its folders", words, "Git cannot read it any more"))
        elif not has_commit(workspace, commit):
            checks.append(unknown("commit", commit, "this repository does not have it; fetch the branch it is on"))
        elif not is_reachable(workspace, commit):
            checks.append(unknown("commit", commit, "no branch or tag leads to it, so Git will drop it; tag it"))
        else:
            checks.append(passed("commit", commit, "a branch or tag leads to it"))
    for stage in stages:
        state = receipts[stage]["git"]
        if state.get("diff") is not None:
            sha256 = hashlib.sha256(state["diff"].encode()).hexdigest()
            checks += compare(
                "commit", f"{stage}: diff", state["diff_sha256"], sha256, "the kept difference was changed"
            )
    return checks


def code(receipts: Receipts, stages: Sequence[str], states: Mapping[Key, Snapshot | None]) -> list[Finding]:
    """Return whether each stage's code and params are, file by file, what Git recorded."""
    checks: list[Finding] = []
    for stage in stages:
        receipt = receipts[stage]
        state = states.get(key_of(receipt))
        if state is None:
            checks.append(unknown("code", stage, "Git cannot give the files of its commit"))
            continue
        if "code" not in receipt:
            checks.append(unknown("code", stage, "the receipt is of an older version and does not name its code"))
            continue
        files = state.read([*receipt["code"], PARAMS, PIPELINE])
        found: list[Finding] = []
        if PIPELINE in state.blobs and PIPELINE not in files:
            found.append(failed("code", PIPELINE, "a readable file", "a broken one", "Git cannot read it any more"))
        lost = receipt["git"]["dirty"] and receipt["git"].get("diff") is None  # the edits are not known any more
        for path, sha256 in receipt["code"].items():
            here = hashlib.sha256(files[path]).hexdigest() if path in files else "no such file"
            if here != sha256:
                words = f"{stage} ran with other code than Git recorded"
                found.append(
                    unknown("code", path, f"{words}, and the edits were too large to keep")
                    if lost
                    else failed("code", path, sha256, here, words)
                )
        checks += whole("code", stage, found, f"{len(receipt['code'])} modules are what Git recorded")
        checks += _params(stage, receipt, files.get(PARAMS), lost)
    return checks


def _params(stage: str, receipt: Receipt, content: bytes | None, lost: bool) -> list[Finding]:
    values = _yaml(content)
    words = f"{stage} read other params than Git recorded"
    if not isinstance(values, dict):
        return (
            [unknown("params", stage, f"{words}, and the edits were too large to keep")]
            if lost
            else [failed("params", f"{PARAMS} ({stage})", "params", "no readable file", words)]
        )
    expected, filled = plain(receipt["params"]), completed(values)
    told = plain(values)

    def only(values: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {key: values[key]} if key in values else {}

    different = [
        key for key in sorted({*expected, *told}) if not agree(only(expected, key), only(told, key), only(filled, key))
    ]
    if not different:
        return [passed("params", stage, "params.yaml as Git recorded it is what the stage read")]
    if lost:
        return [unknown("params", stage, f"{words}, and the edits were too large to keep")]
    return [
        failed("params", f"{PARAMS}: {key} ({stage})", expected.get(key), told.get(key), words) for key in different
    ]


def _yaml(content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        return YAML(typ="safe").load(io.BytesIO(content))
    except (YAMLError, UnicodeDecodeError):
        return None


def locked_code(
    receipts: Receipts, stages: Sequence[str], states: Mapping[Key, Snapshot | None], lock: Mapping[str, Any]
) -> list[Finding]:
    """Return whether the code digests of dvc.lock are those of the files Git recorded."""
    found: list[Finding] = []
    for stage in stages:
        state = states.get(key_of(receipts[stage]))
        deps = [
            one for one in lock.get("stages", {}).get(stage, {}).get("deps", []) if one["path"].startswith("tasks/")
        ]
        if state is None or (receipts[stage]["git"]["dirty"] and receipts[stage]["git"].get("diff") is None):
            continue
        files = state.read([path for one in deps for path in state.below(one["path"])])
        for one in deps:
            path = one["path"]
            below = {name.removeprefix(f"{path}/"): md5(files[name]) for name in files if name.startswith(f"{path}/")}
            here = md5(files[path]) if path in files else listing_md5(below)
            found += compare(
                "dvc.lock", path, here, one.get("md5"), f"{stage}: dvc.lock names other code than Git recorded"
            )
    return found


def sources_lock(
    workspace: Path, receipts: Receipts, stages: Sequence[str], states: Mapping[Key, Snapshot | None]
) -> list[Finding]:
    """Return whether sources.lock, here or in Git, is the one that `fetch` read."""
    checks = []
    for stage in stages:
        one = files_of(receipts[stage], "inputs").get(LOCK)
        if one is None:
            continue
        state = states.get(key_of(receipts[stage]))
        copies = list(state.read([LOCK]).values()) if state else []
        place = workspace / LOCK
        copies += [place.read_bytes()] if place.exists() else []
        found = [hashlib.sha256(copy).hexdigest() for copy in copies]
        hidden = place.exists() and place.stat().st_mtime < _seconds(str(receipts[stage]["started_at"]))
        if hidden and found[-1] != one["sha256"]:
            sentence = f"is older than {stage} by its time stamp, and yet not what that stage read"
            checks.append(failed("sources.lock", LOCK, one["sha256"], found[-1], sentence))
        elif one["sha256"] in found:
            checks.append(passed("sources.lock", LOCK, "is the one the stage read"))
        else:
            checks.append(
                unknown("sources.lock", LOCK, "the one the stage read is neither here nor in Git: it has gone on")
            )
    return checks


def backdated(
    workspace: Path, receipts: Receipts, stages: Sequence[str], states: Mapping[Key, Snapshot | None]
) -> list[Finding]:
    """Return tracked files that were changed after the run and yet bear an older time stamp: an edit that hides.

    A file edited openly is a newer one and belongs to a run to come; that is no fault of this lineage.
    """
    last = max(stages, key=lambda stage: str(receipts[stage]["started_at"]))
    state = states.get(key_of(receipts[last]))
    if state is None or (receipts[last]["git"]["dirty"] and receipts[last]["git"].get("diff") is None):
        return []
    names = [path for path in state.blobs if path.startswith("tasks/") or path in (PARAMS, PIPELINE, LOCK)]
    found: list[Finding] = []
    edited = 0
    for path, content in state.read(names).items():
        place = workspace / path
        if not place.exists() or place.read_bytes() == content:
            continue
        edited += 1
        if place.stat().st_mtime < _seconds(str(receipts[last]["started_at"])):
            expected, here = (hashlib.sha256(b).hexdigest() for b in (content, place.read_bytes()))
            sentence = f"is older than {last} by its time stamp, and yet not what that stage saw"
            found.append(failed("time stamps", path, expected, here, sentence))
    return whole("time stamps", "workspace", found, f"{edited} files were edited openly since the run")


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()
