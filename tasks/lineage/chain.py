"""The chain of receipts behind a model: who wrote which file, and which stages a stage rests on.

Receipts are plain dictionaries as docs/artifacts.md describes them, by stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from tasks.files import listing_md5
from tasks.params.recorded import recorded_params

Receipt = Mapping[str, Any]
Receipts = Mapping[str, Receipt]

RECEIPTS_FOLDER: Final = "artifacts/receipts"
KEYS: Final = ("command", "compute_seconds", "git", "inputs", "outputs", "params", "stage", "started_at")
LOCK: Final = "sources.lock"  # the one input that no stage writes: Git has it


def parse(stage: str, content: bytes) -> dict[str, Any]:
    """Return the receipt of a stage from its bytes; ValueError unless it is one."""
    receipt = json.loads(content)
    missing = [key for key in KEYS if key not in receipt] if isinstance(receipt, dict) else ["everything"]
    if missing or receipt["stage"] != stage:
        raise ValueError(f"no {missing[0]}" if missing else f"of stage {receipt['stage']!r}")
    return dict(receipt)


def files_of(receipt: Receipt, *roles: str) -> dict[str, dict[str, Any]]:
    """Return path -> digests of every single file among a receipt's `inputs` and `outputs` (or the roles given)."""
    found: dict[str, dict[str, Any]] = {}
    for role in roles or ("inputs", "outputs"):
        for path, entry in receipt[role].items():
            for name, digests in entry["files"].items() if "files" in entry else (("", entry),):
                found[f"{path}/{name}" if name else path] = digests
    return found


def producers(receipts: Receipts) -> dict[str, str]:
    """Return path of a file -> the stage that wrote it."""
    return {path: stage for stage, receipt in receipts.items() for path in files_of(receipt, "outputs")}


def ancestors(receipts: Receipts, last: str) -> list[str]:
    """Return the stages on whose files `last` rests, in the order in which they can run, itself included."""
    wrote = producers(receipts)
    done: dict[str, None] = {}

    def visit(stage: str) -> None:
        if stage in done:
            return
        for upstream in sorted(
            {wrote[path] for path in files_of(receipts[stage], "inputs") if path in wrote} - {stage}
        ):
            visit(upstream)
        done[stage] = None

    visit(last)
    return list(done)


def edges(receipts: Receipts, stages: Iterable[str]) -> list[tuple[str, str]]:
    """Return (writer, reader) of the stages among themselves."""
    chosen = list(stages)
    wrote = producers({stage: receipts[stage] for stage in chosen})
    return sorted(
        {(wrote[path], stage) for stage in chosen for path in files_of(receipts[stage], "inputs") if path in wrote}
    )


def md5_of(receipt: Receipt, path: str) -> str | None:
    """Return DVC's name of a file or folder by the single files of a receipt; None if the receipt does not know it."""
    files = files_of(receipt)
    if path in files:
        return files[path].get("md5")
    below = {name.removeprefix(f"{path}/"): one for name, one in files.items() if name.startswith(f"{path}/")}
    folders = [name for role in ("inputs", "outputs") for name, one in receipt[role].items() if "files" in one]
    known = bool(below) or any(path.startswith(f"{folder}/") for folder in folders)  # an empty one inside another
    if not known or not all("md5" in one for one in below.values()):
        return None
    return listing_md5({name: str(one["md5"]) for name, one in below.items()})


def rounds_of(stages: Iterable[str]) -> list[str]:
    """Return the models among these stages, `teacher` first and each round after its parent."""
    names = [
        "teacher" if stage == "teacher" else stage.partition("@")[2]
        for stage in stages
        if stage == "teacher" or stage.startswith("distill@")
    ]
    return names


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


def agree(recorded: Any, told: Any, filled: Any) -> bool:
    """Return whether params that a person wrote (`told`) are those of a receipt, which also has what was left out.

    `filled` are the same with the values that this version leaves out; another version may have left out others, so a key
    that only one of the two has says nothing.
    """
    return _holds(recorded, told) and not _contradicts(recorded, filled)


def _holds(recorded: Any, told: Any) -> bool:
    if isinstance(recorded, Mapping) and isinstance(told, Mapping):
        return all(key in recorded and _holds(recorded[key], value) for key, value in told.items())
    if isinstance(recorded, list) and isinstance(told, list):
        return len(recorded) == len(told) and all(map(_holds, recorded, told))
    return bool(recorded == told)


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
