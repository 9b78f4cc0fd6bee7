"""What dvc.yaml lists for a stage: the params that it may read and the code that it runs, as plain text and without DVC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

PIPELINE: Final = "dvc.yaml"
CODE: Final = "tasks/"


@dataclass(frozen=True)
class Entry:
    """A stage of dvc.yaml: dotted keys of params.yaml, and files and folders of code."""

    stage: str
    params: tuple[str, ...]
    code: tuple[str, ...]


def entry_of(stage: str, workspace: Path = Path()) -> Entry | None:
    """Return the entry of a stage such as `prune@r1`; None where dvc.yaml, or a stage of that name, is missing."""
    place = workspace / PIPELINE
    name, _, key = stage.partition("@")
    stages = YAML(typ="safe").load(place.read_text(encoding="utf-8"))["stages"] if place.exists() else {}
    if name not in stages:
        return None
    block = stages[name]
    values = _values(block, key)
    params, deps = ([_filled(str(text), values) for text in block.get("do", block).get(role, ())] for role in ("params", "deps"))
    return Entry(stage, tuple(params), tuple(path for path in deps if path.startswith(CODE)))


def _values(block: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return what the names in `${...}` stand for in the stage `<name>@<key>`; a matrix joins its values with `-`."""
    names = [f"item.{name}" for name in block.get("matrix", ())]
    return {"key": key, "item": key, **dict(zip(names, key.split("-"), strict=False))}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda match: values.get(match[1], match[0]), text)
