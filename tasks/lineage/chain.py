"""The chain of receipts behind a model: who wrote which file, and which stages a stage rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NotRequired, TypedDict

from pydantic import ValidationError

from tasks.artifacts import TEACHER, Digest, GitState
from tasks.files import listing_md5, parse_json
from tasks.params.recorded import recorded_params


class Receipt(TypedDict):
    """One execution of one stage, as docs/artifacts.md describes it; earlier versions left out what is not required."""

    stage: str
    command: list[str]
    inputs: dict[str, Digest]
    outputs: dict[str, Digest]
    parent_models: NotRequired[dict[str, str]]
    code: NotRequired[dict[str, str]]  # path -> sha256 of each module that was loaded
    params: dict[str, Any]
    git: GitState
    environment: dict[str, Any]
    device: NotRequired[str | None]
    precision: NotRequired[str | None]
    threads: NotRequired[int | None]
    processes: NotRequired[int]
    backend: NotRequired[str | None]
    started_at: str
    compute_seconds: float
    facts: NotRequired[dict[str, Any]]


Receipts = Mapping[str, Receipt]
Role = Literal["inputs", "outputs"]

ROLES: Final[tuple[Role, ...]] = ("inputs", "outputs")
KEYS: Final = ("command", "compute_seconds", "git", "inputs", "outputs", "params", "stage", "started_at")
LOCK: Final = "sources.lock"  # the one input that no stage writes: Git has it


def parse(stage: str, content: bytes) -> Receipt:
    """Return the receipt of a stage from its bytes; ValueError unless it is one."""
    receipt = parse_json(content)
    missing = [key for key in KEYS if key not in receipt] if isinstance(receipt, dict) else ["everything"]
    if missing or receipt["stage"] != stage:
        raise ValueError(f"no {missing[0]}" if missing else f"of stage {receipt['stage']!r}")
    if words := _shape_fault(receipt):
        raise ValueError(words)
    checked: Receipt = receipt
    return checked


def _shape_fault(receipt: Mapping[str, Any]) -> str | None:
    """Return which part of a receipt is not of the kind that whoever reads it takes for granted; None where all are."""
    for key in ("params", "git", "inputs", "outputs", "environment", "facts", "code", "parent_models"):
        if not isinstance(receipt.get(key, {}), dict):
            return f"{key} is no object"
    if {"commit", "dirty", "diff_sha256"} - receipt["git"].keys():
        return "git tells no commit, or no state of the files"
    command, seconds = receipt["command"], receipt["compute_seconds"]
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return "command is no list of words"
    if not isinstance(seconds, int | float):
        return "compute_seconds is no number"
    try:
        datetime.fromisoformat(receipt["started_at"])
    except (TypeError, ValueError):
        return "started_at is no time"
    digests = [entry for role in ROLES for entry in receipt[role].values()]
    below = [entry.get("files", {}) for entry in digests if isinstance(entry, dict)]
    if len(below) < len(digests) or not all(isinstance(files, dict) for files in below):
        return "a file has no digest"
    for entry in (*digests, *(entry for files in below for entry in files.values())):
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or not isinstance(entry.get("md5", ""), str):
            return "a file has no digest"
    return None


def sha256_of(content: bytes) -> str:
    """Return the sha256 of bytes in hex."""
    return hashlib.sha256(content).hexdigest()


def files_of(receipt: Receipt, *roles: Role) -> dict[str, Digest]:
    """Return path -> digests of every single file among a receipt's `inputs` and `outputs` (or the roles given)."""
    return {
        f"{path}/{name}" if name else path: digests
        for role in roles or ROLES
        for path, entry in receipt[role].items()
        for name, digests in entry.get("files", {"": entry}).items()
    }


def written(receipts: Receipts) -> dict[str, Digest]:
    """Return path -> digests of every single file that the stages wrote."""
    return {path: file for receipt in receipts.values() for path, file in files_of(receipt, "outputs").items()}


def producers(receipts: Receipts) -> dict[str, str]:
    """Return path of a file -> the stage that wrote it."""
    return {path: stage for stage, receipt in receipts.items() for path in files_of(receipt, "outputs")}


def ancestors(receipts: Receipts, last: str) -> list[str]:
    """Return the stages on whose files `last` rests, in the order in which they can run, itself included."""
    writers = producers(receipts)
    done: dict[str, None] = {}

    def visit(stage: str) -> None:
        if stage in done:
            return
        for upstream in sorted({writers[p] for p in files_of(receipts[stage], "inputs") if p in writers} - {stage}):
            visit(upstream)
        done[stage] = None

    visit(last)
    return list(done)


def edges(receipts: Receipts, stages: Iterable[str]) -> list[tuple[str, str]]:
    """Return (writer, reader) of the stages among themselves."""
    chosen = list(stages)
    writers = producers({stage: receipts[stage] for stage in chosen})
    return sorted({(writers[path], stage) for stage in chosen for path in files_of(receipts[stage], "inputs") if path in writers})


def md5_of(receipt: Receipt, path: str) -> str | None:
    """Return DVC's name of a file or folder by the single files of a receipt; None if the receipt does not know it."""
    files = files_of(receipt)
    if path in files:
        return files[path].get("md5")
    below = {name.removeprefix(f"{path}/"): file for name, file in files.items() if name.startswith(f"{path}/")}
    folders = [name for role in ROLES for name, entry in receipt[role].items() if "files" in entry]
    known = bool(below) or any(path.startswith(f"{folder}/") for folder in folders)  # an empty one inside another
    if not known or not all("md5" in file for file in below.values()):
        return None
    return listing_md5({name: file["md5"] for name, file in below.items()})


def rounds_of(stages: Iterable[str]) -> list[str]:
    """Return the models among these stages, `teacher` first and each round after its parent."""
    return [stage.removeprefix("distill@") for stage in stages if stage == TEACHER or stage.startswith("distill@")]


def evaluation_of(name: str) -> str:
    """Return the stage that evaluates the model of a round, or the teacher."""
    return "evaluate_teacher" if name == TEACHER else f"evaluate@{name}"


def edits_lost(state: GitState) -> bool:
    """Return whether a stage ran with edits that were too large to keep: then its code is not known any more."""
    return state["dirty"] and state.get("diff") is None


def plain(value: Any) -> Any:
    """Return params without nulls and with text keys, so that the file, dvc.lock and a receipt compare."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def completed(params: Any) -> Any:
    """Return params as a receipt has them: with the values a person may leave out; as they are if they are no params."""
    try:
        return plain(recorded_params(params).model_dump(mode="json"))
    except (ValidationError, TypeError, ValueError):
        return plain(params)


def agree(recorded: Any, written: Any, filled: Any) -> bool:
    """Return whether params that a person wrote are those of a receipt, which also has what was left out.

    `filled` are the same with the values that this version leaves out; another version may have left out others, so a key
    that only one of the two has says nothing.
    """
    return _holds(recorded, written) and not _contradicts(recorded, filled)


def _holds(recorded: Any, written: Any) -> bool:
    if isinstance(recorded, Mapping) and isinstance(written, Mapping):
        return all(key in recorded and _holds(recorded[key], value) for key, value in written.items())
    if isinstance(recorded, list) and isinstance(written, list):
        return len(recorded) == len(written) and all(map(_holds, recorded, written))
    return bool(recorded == written)


def _contradicts(recorded: Any, filled: Any) -> bool:
    if isinstance(recorded, Mapping) and isinstance(filled, Mapping):
        return any(_contradicts(recorded[key], filled[key]) for key in recorded if key in filled)
    if isinstance(recorded, list) and isinstance(filled, list):
        return len(recorded) != len(filled) or any(map(_contradicts, recorded, filled))
    return bool(recorded != filled)


def with_value(params: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return params with another value at a dotted key."""
    head, _, rest = key.partition(".")
    return {**params, head: with_value(params.get(head) or {}, rest, value) if rest else value}


def param(params: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, None where there is none."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
