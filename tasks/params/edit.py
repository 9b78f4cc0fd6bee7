"""Changes of params.yaml asked for on the command line: checked whole first, then written, and easy to undo."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import ParamsError, UserError
from tasks.files import read_json, write_json
from tasks.params.base import Params
from tasks.params.file import load_text, override_all, read_text

CHANGES: Final = Path(".compactlm") / "params-changes.json"  # what was written here, oldest first: how to undo it
KEPT: Final = 20


def planned_text(workspace: Path, replacement: Path | None, overrides: list[str]) -> str:
    """Return what params.yaml would hold, which need not describe a run; ParamsError when it cannot be read or changed so."""
    source = replacement or workspace / "params.yaml"
    text = read_text(source)
    return override_all(text, overrides, source.name) if overrides else text


def write_text(workspace: Path, text: str) -> list[str]:
    """Write params.yaml if its content changes, and return lines that say what changed and how to undo it."""
    path = workspace / "params.yaml"
    old = read_text(path)
    if old == text:
        return []
    try:
        lines = [f"params.yaml: {line}" for line in changes(load_text(old, path.name), load_text(text, path.name))]
    except ParamsError:
        lines = ["params.yaml: replaced; it described no run"]
    if not lines:  # the same values, at most written in another way
        return []
    write_json(workspace / CHANGES, [*_changes(workspace), {"before": old, "after": text}][-KEPT:])
    _replace(path, text)
    return [*lines, "params.yaml was changed; undo with: compactlm undo"]


def undo(workspace: Path) -> list[str]:
    """Take back the last change that was written here, alone, and return the lines that it concerns.

    UserError where there is none, or where what it changed was edited since.
    """
    made, path = _changes(workspace), workspace / "params.yaml"
    if not made:
        raise UserError(f"{path}: no change of `compactlm run --set` or `--params` is left to undo")
    text = read_text(path)
    now, after, before = (each.splitlines(keepends=True) for each in (text, made[-1]["after"], made[-1]["before"]))
    lines, said = list(now), []
    same = difflib.SequenceMatcher(None, after, now, autojunk=False).get_matching_blocks()
    for _, start, end, first, last in reversed(difflib.SequenceMatcher(None, after, before, autojunk=False).get_opcodes()):
        if after[start:end] == before[first:last]:
            continue
        # Also a place where lines went must still be there: the lines around it.
        block = next((b for b in same if b.a <= start and end <= b.a + b.size and (start < end or b.size)), None)
        if block is None:
            was = "".join(before[first:last]).rstrip()
            raise UserError(f"{path}: what the last change wrote was edited since; by hand, it was:\n{was}")
        lines[block.b + start - block.a : block.b + end - block.a] = before[first:last]
        said += [f"+ {line.rstrip()}" for line in before[first:last]] + [f"- {line.rstrip()}" for line in after[start:end]]
    _replace(path, "".join(lines))
    write_json(workspace / CHANGES, made[:-1])
    return [f"params.yaml: {line}" for line in reversed(said)]


def _changes(workspace: Path) -> list[dict[str, str]]:
    place = workspace / CHANGES
    return list(read_json(place)) if place.exists() else []


def _replace(path: Path, text: str) -> None:
    partial = path.with_name("params.yaml.partial")
    partial.write_bytes(text.encode())
    partial.replace(path)


def changes(old: Params, new: Params) -> list[str]:
    """Return one line `key: old -> new` for each value that differs."""
    before, after = (flatten_params("", params.model_dump(mode="json")) for params in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    return [f"{k}: {before.get(k, 'none')} -> {after.get(k, 'none')}" for k in keys if before.get(k) != after.get(k)]


def require_file(path: Path | None) -> None:
    """Raise ParamsError when a file given on the command line does not exist."""
    if path is not None and not path.is_file():
        raise ParamsError(f"--params {path}: there is no such file")


def flatten_params(prefix: str, value: Any) -> dict[str, str]:
    """Return params under dotted names; lists become JSON."""
    if isinstance(value, Mapping):
        parts = (flatten_params(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
        return {name: leaf for part in parts for name, leaf in part.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value, sort_keys=True)}
