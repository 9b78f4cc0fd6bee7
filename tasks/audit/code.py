"""Checks of code and params: what Git recorded at a receipt's commit is what the stage ran with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.audit.evidence import Evidence
from tasks.errors import ParamsError
from tasks.files import listing_md5
from tasks.git import Snapshot, damage, has_commit, is_reachable, is_shallow, snapshot
from tasks.lineage.chain import LOCK, Receipt, agree, completed, edits_lost, files_of, plain, sha256_of
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.params.file import parse_yaml
from tasks.running.objects import md5

Key = tuple[str | None, str | None]
States = Mapping[Key, Snapshot | None]
PARAMS = "params.yaml"
PIPELINE = "dvc.yaml"
CODE = "tasks/"
TOO_LARGE = "and the edits were too large to keep"


def key_of(receipt: Receipt) -> Key:
    """Return what identifies the state of the code a stage ran with: commit and digest of the difference from it."""
    return receipt["git"]["commit"], receipt["git"]["diff_sha256"]


def snapshots(evidence: Evidence, scratch: Path) -> dict[Key, Snapshot | None]:
    """Return the files that Git recorded for each state of the code; None where Git cannot give them."""
    states = {key_of(receipt): receipt["git"] for _, receipt in reversed(evidence.behind)}
    return {
        key: snapshot(evidence.workspace, state["commit"], state.get("diff"), scratch)
        for key, state in states.items()
        if state["commit"]
    }


def commits(evidence: Evidence) -> list[Finding]:
    """Return whether Git has the commits, something leads to them, and the kept differences are the recorded ones."""
    names = sorted({str(receipt["git"]["commit"]) for _, receipt in evidence.behind})
    checks = [_commit(evidence.workspace, name) for name in names]
    for stage, receipt in evidence.behind:
        recorded, diff = receipt["git"]["diff_sha256"], receipt["git"].get("diff")
        if diff is not None:
            sentence = "the kept difference was changed"
            checks += compare("commit", f"{stage}: diff", recorded, sha256_of(diff.encode()), sentence)
    return checks


def _commit(workspace: Path, commit: str) -> Finding:
    if commit == "None":
        return unknown("commit", "none", "a stage ran outside of Git, so nothing holds its code")
    if words := damage(workspace, commit):
        return failed("commit", commit, "a commit and its folders", words, "Git cannot read it any more")
    if not has_commit(workspace, commit):
        how = "this clone is shallow: git fetch --unshallow" if is_shallow(workspace) else "fetch the branch it is on"
        return unknown("commit", commit, f"this repository does not have it; {how}")
    if not is_reachable(workspace, commit):
        return unknown("commit", commit, "no branch or tag leads to it, so Git will drop it; tag it")
    return passed("commit", commit, "a branch or tag leads to it")


def code(evidence: Evidence, states: States) -> list[Finding]:
    """Return whether each stage's code and params are, file by file, what Git recorded."""
    checks: list[Finding] = []
    for stage, receipt in evidence.behind:
        state = states.get(key_of(receipt))
        if state is None:
            checks.append(unknown("code", stage, "Git cannot give the files of its commit"))
        elif "code" not in receipt:
            checks.append(unknown("code", stage, "the receipt is of an older version and does not name its code"))
        else:
            checks += _code(stage, receipt, receipt["code"], state)
    return checks


def _code(stage: str, receipt: Receipt, modules: Mapping[str, str], state: Snapshot) -> list[Finding]:
    files = state.read([*modules, PARAMS, PIPELINE])
    findings: list[Finding] = []
    if PIPELINE in state.blobs and PIPELINE not in files:
        findings.append(failed("code", PIPELINE, "a readable file", "a broken one", "Git cannot read it any more"))
    lost = edits_lost(receipt["git"])
    words = f"{stage} ran with other code than Git recorded"
    for path, sha256 in modules.items():
        here = sha256_of(files[path]) if path in files else "no such file"
        if lost and here != sha256:
            findings.append(unknown("code", path, f"{words}, {TOO_LARGE}"))
        else:
            findings += compare("code", path, sha256, here, words)
    checks = whole("code", stage, findings, f"{len(modules)} modules are what Git recorded")
    return checks + _params(stage, receipt, files.get(PARAMS), lost)


def _params(stage: str, receipt: Receipt, content: bytes | None, lost: bool) -> list[Finding]:
    values = _yaml(content)
    readable = isinstance(values, dict)
    recorded, written, filled = plain(receipt["params"]), plain(values), completed(values)

    def only(params: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {key: params[key]} if key in params else {}

    different = [
        key
        for key in (sorted({*recorded, *written}) if readable else ())
        if not agree(only(recorded, key), only(written, key), only(filled, key))
    ]
    words = f"{stage} read other params than Git recorded"
    if readable and not different:
        return [passed("params", stage, "params.yaml as Git recorded it is what the stage read")]
    if lost:
        return [unknown("params", stage, f"{words}, {TOO_LARGE}")]
    if not readable:
        return [failed("params", f"{PARAMS} ({stage})", "params", "no readable file", words)]
    return [failed("params", f"{PARAMS}: {key} ({stage})", recorded.get(key), written.get(key), words) for key in different]


def _yaml(content: bytes | None) -> Any:
    try:
        return None if content is None else parse_yaml(content.decode(), PARAMS)
    except (ParamsError, UnicodeDecodeError):
        return None


def locked_code(evidence: Evidence, states: States) -> list[Finding]:
    """Return whether the code digests of dvc.lock are those of the files Git recorded."""
    findings: list[Finding] = []
    for stage in evidence.current:
        state = states.get(key_of(evidence.receipts[stage]))
        if state is None or edits_lost(evidence.receipts[stage]["git"]):
            continue
        deps = evidence.lock.get("stages", {}).get(stage, {}).get("deps", [])
        locked = {dep["path"]: dep.get("md5") for dep in deps if dep["path"].startswith(CODE)}
        files = state.read([path for dep in locked for path in state.below(dep)])
        for path, expected in locked.items():
            findings += _locked_path(evidence.workspace, stage, path, expected, files)
    return findings


def _locked_path(workspace: Path, stage: str, path: str, locked: str | None, files: Mapping[str, bytes]) -> list[Finding]:
    """Return whether dvc.lock has the digest of a file or folder of code, and if not, which file there Git does not know."""
    sums = {name: md5(content) for name, content in files.items() if name == path or name.startswith(f"{path}/")}
    if _digest(path, sums) == locked:
        return []
    # DVC digests all that lies in a folder of code, also what nobody has given to Git.
    strangers = {name: md5((workspace / name).read_bytes()) for name in _code_below(workspace, path) if name not in sums}
    if strangers and _digest(path, sums | strangers) == locked:
        sentence = f"is not in Git, and dvc.lock counts it as code of {stage}: commit it or remove it, then run again"
        return [failed("dvc.lock", name, "a file in Git", "one that is not", sentence) for name in strangers]
    sentence = f"{stage}: dvc.lock names other code than Git recorded"
    return [failed("dvc.lock", path, _digest(path, sums), locked, sentence)]


def _digest(path: str, sums: Mapping[str, str]) -> str:
    """Return DVC's name of a file of code, or of a folder from the md5 of the files in it."""
    if path in sums:
        return sums[path]
    return listing_md5({name.removeprefix(f"{path}/"): digest for name, digest in sums.items()})


def _code_below(workspace: Path, path: str) -> list[str]:
    """Return the files at a path of the workspace as DVC sees them: without what .dvcignore leaves out."""
    places = [workspace / path, *(workspace / path).rglob("*")]
    return sorted(p.relative_to(workspace).as_posix() for p in places if p.is_file() and p.suffix != ".pyc")


def sources_lock(evidence: Evidence, states: States) -> list[Finding]:
    """Return whether sources.lock, here or in Git, is the one that `fetch` read."""
    checks = []
    for stage, receipt in evidence.behind:
        expected = files_of(receipt, "inputs").get(LOCK, {}).get("sha256")
        if expected is None:
            continue
        state, place = states.get(key_of(receipt)), evidence.workspace / LOCK
        copies = [sha256_of(content) for content in state.read([LOCK]).values()] if state else []
        here = sha256_of(place.read_bytes()) if place.exists() else None
        if here is not None and here != expected and place.stat().st_mtime < _seconds(receipt):
            sentence = f"is older than {stage} by its time stamp, and yet not what that stage read"
            checks.append(failed("sources.lock", LOCK, expected, here, sentence))
        elif expected in (here, *copies):
            checks.append(passed("sources.lock", LOCK, "is the one the stage read"))
        else:
            sentence = "the one the stage read is neither here nor in Git: it has gone on"
            checks.append(unknown("sources.lock", LOCK, sentence))
    return checks


def backdated(evidence: Evidence, states: States) -> list[Finding]:
    """Return tracked files that were changed after the run and yet bear an older time stamp: an edit that hides.

    A file edited openly is a newer one and belongs to a run to come; that is no fault of this lineage.
    """
    last, receipt = max(evidence.behind, key=lambda pair: pair[1]["started_at"])
    state = states.get(key_of(receipt))
    if state is None or edits_lost(receipt["git"]):
        return []
    names = [path for path in state.blobs if path.startswith(CODE) or path in (PARAMS, PIPELINE, LOCK)]
    here = {path: evidence.workspace / path for path in names if (evidence.workspace / path).exists()}
    then = state.read(list(here))
    edited = [path for path, content in then.items() if here[path].read_bytes() != content]
    sentence = f"is older than {last} by its time stamp, and yet not what that stage saw"
    findings = [
        failed("time stamps", path, sha256_of(then[path]), sha256_of(here[path].read_bytes()), sentence)
        for path in edited
        if here[path].stat().st_mtime < _seconds(receipt)
    ]
    return whole("time stamps", "workspace", findings, f"{len(edited)} files were edited openly since the run")


def _seconds(receipt: Receipt) -> float:
    return datetime.fromisoformat(receipt["started_at"]).timestamp()
