"""The log of decisions: who became champion, when, why, on what evidence. Append-only, hash-chained, kept twice.

The Git ref `refs/compactlm/decisions/<number>` points at a blob that holds one decision. Git makes such a ref only where there
is none, so of two processes that decide at once exactly one gets the number: making the ref is the commit point.
`decisions.jsonl` in the project is the same log as lines for people and for `git clone`, which does not bring those refs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypedDict

from tasks import git
from tasks.errors import ResourceError, StageError, UserError
from tasks.files import parse_object

LOG: Final = "decisions.jsonl"
REFS: Final = "refs/compactlm/decisions"
PATIENCE_SECONDS: Final = 10.0
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"  # how records write a time
ALIASES: Final = ("champion", "previous")
Decision = dict[str, Any]


class VersionRecord(TypedDict):
    """What decisions say of a registered version; the ids of MLflow are None where an index that was made again has none."""

    version: str
    model_sha256: str
    round: str
    model_id: str | None
    run_id: str | None
    teacher_run_id: str | None


def version_record(number: str, tags: Mapping[str, str]) -> VersionRecord:
    """Return what decisions say of a version with these tags."""
    model, run, teacher = (tags.get(key) for key in ("model_id", "run_id", "teacher_run_id"))
    return VersionRecord(
        version=number, model_sha256=tags["model_sha256"], round=tags["round"], model_id=model, run_id=run, teacher_run_id=teacher
    )


def now() -> str:
    """Return the time as records write it."""
    return datetime.now(UTC).strftime(TIME)


def sealed(content: Mapping[str, Any], log: Sequence[Decision]) -> Decision:
    """Return a decision as the next of a log: with its number, the digest of the one before, and its own."""
    chained = {**content, "number": len(log) + 1, "previous_sha256": log[-1]["sha256"] if log else None}
    return {**chained, "sha256": _sha256(chained)}


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def faults(log: Sequence[Decision]) -> list[str]:
    """Return what is wrong with a chain, a sentence each; empty when it is intact."""
    wrong = []
    previous = None
    for place, entry in enumerate(log, start=1):
        content = {key: value for key, value in entry.items() if key != "sha256"}
        if entry.get("number") != place:
            wrong.append(f"decision {place} has the number {entry.get('number')}: one was taken out or moved")
        if entry.get("sha256") != _sha256_of_file(content):
            wrong.append(f"decision {place} was changed: its digest is not that of its content")
        if entry.get("previous_sha256") != previous:
            wrong.append(f"decision {place} does not follow the one before it")
        previous = entry.get("sha256")
    return wrong


def _sha256_of_file(content: Mapping[str, Any]) -> str:
    """Return the digest of content that may come from anybody, nothing where no decision can have it."""
    try:
        return _sha256(content)
    except (ValueError, RecursionError):  # numbers that are none, or nested too deeply
        return ""


def shape_faults(log: Sequence[Decision]) -> list[str]:
    """Return which records lack what every reader of the log takes for granted, a sentence each."""
    words = {place: _shape_fault(entry) for place, entry in enumerate(log, start=1)}
    return [f"decision {place} is no decision: {fault}" for place, fault in words.items() if fault]


def _shape_fault(entry: Mapping[str, Any]) -> str | None:
    for key in ("model", "kind", "outcome", "reason", "actor", "at"):
        if not isinstance(entry.get(key), str):
            return f"{key} must be text"
    verdict, before = entry.get("verdict"), entry.get("before")
    if not isinstance(before, dict) or not isinstance(verdict, dict) or not isinstance(verdict.get("rules"), list):
        return "verdict with its rules, and before, are needed"
    if not all(isinstance(rule, dict) and {"result", "severity", "sentence"} <= rule.keys() for rule in verdict["rules"]):
        return "each rule has result, severity and sentence"
    if not {"verdict", "sentence"} <= verdict.keys() or not isinstance(verdict.get("approval", {}), dict | None):
        return "its verdict has no sentence"
    state = {key: entry.get(key) for key in ("champion", "previous")}
    versions = {"candidate": entry.get("candidate") or 0, **state, **{f"before.{key}": before.get(key) for key in ALIASES}}
    for name, version in versions.items():
        texts = [version.get(key) for key in ("version", "model_sha256", "round")] if isinstance(version, dict) else [None]
        if version is not None and not all(isinstance(text, str) for text in texts):
            return f"{name} must be a version"
    return None


def read_log(workspace: Path) -> list[Decision]:
    """Return every decision, oldest first; UserError when the two copies contradict each other or the chain is broken.

    One copy may be behind the other: a crash between the two, or a clone, which has the lines only.
    """
    refs, lines = read_refs(workspace), read_lines(workspace)
    longer, shorter = (refs, lines) if len(refs) >= len(lines) else (lines, refs)
    broken = [*shape_faults(longer), *faults(longer)]
    if longer[: len(shorter)] != shorter:
        broken.append(f"{LOG} and {REFS} tell different stories{_first_difference(lines, refs)}")
    if broken:
        raise UserError(
            f"{workspace / LOG}: the log of decisions is not intact: {'; '.join(broken)}. Find out who changed it; "
            f"`git log {LOG}` has its history and `git for-each-ref {REFS}` the other copy"
        )
    return longer


def _first_difference(lines: Sequence[Decision], refs: Sequence[Decision]) -> str:
    """Return at which decision the two copies part, and what each says: two clones may have decided at once."""
    for line, ref in zip(lines, refs, strict=False):
        if line != ref:
            return f" from decision {line.get('number')} on: {told(line)} in the file, {told(ref)} in the refs"
    return ""


def told(entry: Decision) -> str:
    """Return what a decision says in a few words, for a message that compares it with another one."""
    candidate = entry.get("candidate") or {}
    what = f"{entry.get('kind')} version {candidate.get('version')} ({entry.get('outcome')})"
    return f"{what} at {entry.get('at')} by {entry.get('actor')} ({str(entry.get('sha256'))[:12]})"


def read_lines(workspace: Path) -> list[Decision]:
    """Return the decisions of the file; a last line cut short by a kill is left out, any other one is a UserError."""
    path = workspace / LOG
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    log = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            log.append(parse_object(line))
        except ValueError:
            raise UserError(f"{path}: line {number} is not a decision; `git checkout {LOG}` brings it back") from None
    return log


def read_refs(workspace: Path) -> list[Decision]:
    """Return the decisions that the refs hold, by number; UserError outside of Git, ValueError when Git cannot read one."""
    _git(workspace, "rev-parse", "--git-dir")
    return [parse_object(content) for content in git.read_refs(workspace, REFS).values()]


def commit(workspace: Path, entry: Decision) -> bool:
    """Return whether this decision got its number; False when another one has it already."""
    name = f"{REFS}/{entry['number']:08d}"
    end = time.monotonic() + PATIENCE_SECONDS
    while not git.create_ref(workspace, name, json.dumps(entry, sort_keys=True)):
        if git.git(workspace, "rev-parse", "--verify", "--quiet", name).returncode == 0:
            return False
        if time.monotonic() > end:
            raise ResourceError(
                f"{workspace}: not decided: Git cannot make {name}; see whether its disk has room and this user may write there, "
                "and call again"
            )
        time.sleep(0.05)  # another process holds the ref's lock file this moment
    return True


def mirror(workspace: Path, log: Sequence[Decision]) -> int:
    """Bring both copies up to `log` and return how many entries were missing; call it holding the lease."""
    refs, lines = len(read_refs(workspace)), len(read_lines(workspace))
    for entry in log[refs:]:
        if not commit(workspace, entry):
            raise StageError("decision", f"{REFS}/{entry['number']:08d} was made by somebody else meanwhile; try again")
    path = workspace / LOG
    text = path.read_bytes() if path.exists() else b""
    if lines < len(log) or (text and not text.endswith(b"\n")):
        try:
            _append(path, log[lines:], text.rfind(b"\n") + 1)  # what a kill left of a line goes
        except OSError as error:
            raise ResourceError(
                f"{path}: cannot be written ({error.strerror}); Git has the decisions: mend that, and "
                "`compactlm history --repair` writes the lines"
            ) from None
    return len(log) - min(refs, lines)


def _append(path: Path, entries: Sequence[Decision], place: int) -> None:
    """Write decisions as lines from a place of the file on."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(place)
        file.seek(0, os.SEEK_END)
        file.write("".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def lease(workspace: Path) -> Iterator[None]:
    """Hold the right to decide in this repository, waiting for it; the system gives it back when a process ends."""
    _git(workspace, "rev-parse", "--git-dir")
    place = Path(git.path_of(workspace, "--path-format=absolute", "--git-common-dir")) / "compactlm.lock"
    with place.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _git(workspace: Path, *arguments: str) -> str:
    done = git.git(workspace, *arguments)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise UserError(f"{workspace}: decisions are recorded in Git, and git says: {words}")
    return done.stdout.decode()
