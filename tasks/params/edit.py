"""Changes of params.yaml asked for on the command line: checked whole first, then written, and easy to undo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ParamsError
from tasks.git import git
from tasks.params.base import Params
from tasks.params.file import apply_overrides, load_params, load_text

WRITTEN = Path(".compactlm") / "params-written.sha256"  # digest of what was written here last, which needs no copy
KEPT = Path(".compactlm") / "params-before.yaml"


def planned_text(workspace: Path, replacement: Path | None, overrides: list[str]) -> tuple[str, Params]:
    """Return what params.yaml would hold, with its params; ParamsError when it does not describe a run."""
    source = replacement or workspace / "params.yaml"
    params, text = load_params(source), source.read_text(encoding="utf-8")
    if not overrides:
        return text, params
    text = apply_overrides(text, overrides, source.name)
    return text, load_text(text, source.name)


def write_text(workspace: Path, text: str) -> list[str]:
    """Write params.yaml if its content changes, and return lines that say what changed and how to undo it."""
    path = workspace / "params.yaml"
    old = path.read_text(encoding="utf-8")
    if old == text:
        return []
    lines = [f"params.yaml: {line}" for line in changes(load_params(path), load_text(text, path.name))]
    if not lines:  # the same values, at most written in another way
        return []
    undo = "git checkout params.yaml"
    if not _is_kept(workspace, old):
        (workspace / KEPT).parent.mkdir(exist_ok=True)
        (workspace / KEPT).write_text(old, encoding="utf-8")
        undo = f"cp {KEPT} params.yaml (your edits, not committed, are kept there)"
    partial = path.with_name("params.yaml.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    (workspace / WRITTEN).parent.mkdir(exist_ok=True)
    (workspace / WRITTEN).write_text(_sha256(text), encoding="utf-8")
    return [*lines, f"params.yaml was changed; undo with: {undo}"]


def changes(old: Params, new: Params) -> list[str]:
    """Return one line `key: old -> new` for each value that differs."""
    before, after = (flatten_params("", params.model_dump(mode="json")) for params in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    return [f"{k}: {before.get(k, 'none')} -> {after.get(k, 'none')}" for k in keys if before.get(k) != after.get(k)]


def _is_kept(workspace: Path, text: str) -> bool:
    """Return whether a text can be had again: Git has it as the committed file, or it was written here."""
    written = workspace / WRITTEN
    if written.exists() and written.read_text(encoding="utf-8") == _sha256(text):
        return True
    head = git(workspace, "show", "HEAD:./params.yaml")
    return head.returncode == 0 and head.stdout == text.encode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
