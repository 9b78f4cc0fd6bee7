"""Results of long measurements as JSON lines, one a cell: a cell that is there already is not measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Results:
    """A file of cells, each under the description of what was measured."""

    def __init__(self, path: Path) -> None:
        """Read what the file holds; half a line, which a killed writer leaves, is cut off."""
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            path.write_text("".join(whole), encoding="utf-8")
        for line in whole:
            entry = json.loads(line)
            self._found[_key(entry["cell"])] = entry["facts"]

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the facts of a cell, None when it was not measured yet."""
        return self._found.get(_key(cell))

    def add(self, cell: Mapping[str, Any], facts: dict[str, Any]) -> None:
        """Append the facts of a cell."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": cell, "facts": facts}) + "\n")
        self._found[_key(cell)] = facts


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)
