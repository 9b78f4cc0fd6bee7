"""Which row of a classifier's head answers which class: by the names in config.json, where it has names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

NO_NAME: Final = re.compile(r"LABEL_\d+")  # what transformers calls a class that nobody named


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the classes of a config.json by their row; None where it names none."""
    named = config.get("id2label")
    if not isinstance(named, Mapping) or sorted(map(str, named)) != sorted(map(str, range(len(named)))):
        return None
    names = [str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0]))]
    return None if all(NO_NAME.fullmatch(name) for name in names) else names


def rows_by_name(names: list[str], labels: Mapping[int, str]) -> list[int] | None:
    """Return the row that answers each class of `labels`, 0 first; None unless the names are the same but for their case."""
    rows = {name.strip().casefold(): row for row, name in enumerate(names)}
    wanted = [labels[number].strip().casefold() for number in sorted(labels)]
    if len(rows) != len(names) or set(rows) != set(wanted) or len(set(wanted)) != len(wanted):
        return None
    return [rows[name] for name in wanted]
