"""Markdown of our own with words of others in it: a reason, a file's name, a fault. They show as text, whatever they hold.

Source: CommonMark 0.31, section 2.4: a backslash before a character of ASCII punctuation takes its meaning; GitHub's extensions
(tables, `~`, addresses that become links by themselves) are of the same characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from tasks.progress import visible

# `_` inside a word emphasises nothing, and `@` makes an address where a name with a dot follows.
ACTIVE: Final = re.compile(r"[\\`*\[\]<>|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|@(?=[\w-]*\.)|:(?=//)|(?<=www)\.", re.IGNORECASE)
LEADING: Final = re.compile(r"^(\d*)(?=[-+=#:.)](?!\d))")  # what begins a list, a heading or a line below one


class Markdown(str):
    """Text that is markdown already; whatever else is put into a page is escaped."""

    __slots__ = ()


def plain(value: object) -> Markdown:
    """Return a value as markdown of one line that shows its text and nothing else; markdown as it is."""
    if isinstance(value, Markdown):
        return value
    text = ACTIVE.sub(lambda match: f"\\{match[0]}", _line_of(value))
    return Markdown(LEADING.sub(lambda match: f"{match[1]}\\", text))


def _line_of(value: object) -> str:
    return visible(re.sub(r"[\t\n\r]+", " ", str(value))).strip()


def code(value: object) -> Markdown:
    """Return a value as a code span that it cannot leave, in a table either; nothing of an empty one."""
    text = _line_of(value).replace("|", "\N{FULLWIDTH VERTICAL LINE}")  # a table knows no other way
    if not text:
        return Markdown("")
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    room = " " if "`" in text else ""
    return Markdown(f"{fence}{room}{text}{room}{fence}")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return a table."""
    lines = [_line(heads), "|" + "---|" * len(heads) + "\n", *map(_line, rows)]
    return Markdown("".join(lines))


def _line(cells: Sequence[object]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in map(plain, cells)) + "\n"


def bullets(lines: Iterable[object]) -> Markdown:
    """Return a list, an item a line."""
    return Markdown("".join(f"- {plain(line)}\n" for line in lines))
