"""A draft as the text of params.yaml: one line a value, with its reason beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from tasks.drafting.draft import Draft, Entry

WIDTH: Final = 130  # characters; a line with its reason that is longer has the reason above
PLAIN: Final = re.compile(r"[A-Za-z][\w./:@+-]*[\w/]|[A-Za-z]")  # a string that YAML reads as one without quotes
RESERVED: Final = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf")
COLUMN: Final = 40  # where reasons begin, where there is room


def text_of(draft: Draft, head: Sequence[str]) -> str:
    """Return the file; `head` are the lines of its first comment."""
    lines = [*(f"# {line}" for line in head)]
    for name, entries in draft.sections.items():
        if len(entries) == 1 and entries[0].key == "":
            lines += _lines(f"{name}: {flow(entries[0].value)}", entries[0].why, "")
            continue
        lines += ["", f"{name}:"]
        for entry in entries:
            if isinstance(entry.value, list) and any(isinstance(item, dict) for item in entry.value):
                lines += [f"  {entry.key}:", *(f"    - {flow(item)}" for item in entry.value)]
            else:
                lines += _lines(*_said(entry), "  ")
    return "\n".join(lines) + "\n"


def _said(entry: Entry) -> tuple[str, str]:
    mark = "- " if entry.key == "-" else f"{entry.key}: "
    return f"  {mark}{flow(entry.value)}", entry.why


def _lines(said: str, why: str, indent: str) -> list[str]:
    if not why:
        return [said]
    line = f"{said:<{COLUMN}} # {why}"
    return [line] if len(line) <= WIDTH else [f"{indent}# {why}", said]


def flow(value: Any) -> str:
    """Return a value as YAML on one line, strings in quotes only where they might be read as something else."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{flow(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in RESERVED
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return repr(value) if "." in mantissa or not e else f"{mantissa}.0e{exponent}"  # YAML takes 1e-05 for a string
    return json.dumps(value)
