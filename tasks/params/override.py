"""One value of a YAML text changed in its place: all other lines stay as they are, to the byte."""

from __future__ import annotations

import json
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from tasks.errors import ParamsError

BLOCK_SCALARS: Final = ("|", ">")
BYTE_ORDER_MARK: Final = "\ufeff"


def override(text: str, wanted: str, file: str) -> str:
    """Return `text` with `wanted`, a `dotted.key=value`, applied; ParamsError where there is no such place or no such value."""
    key, separator, raw = wanted.partition("=")
    if not separator:
        raise ParamsError(f"--set {wanted}: no '='; write --set rounds.r3.layers=2")
    *parents, last = key.strip().split(".")
    if text.startswith(BYTE_ORDER_MARK):  # places are counted without it
        return BYTE_ORDER_MARK + override(text.removeprefix(BYTE_ORDER_MARK), wanted, file)
    place = YAML(typ="safe").compose(text)
    for part in parents:
        value = _entry(place, part)
        if value is None:
            allowed = ", ".join(_names(place)) or "nothing below it"
            raise ParamsError(f"--set {wanted}: {file} has no key {part!r} there; allowed: {allowed}")
        place = value[1]
    if not isinstance(place, MappingNode):
        raise ParamsError(f"--set {wanted}: {file} has no keys below {'.'.join(parents)}; give all of it")
    try:
        value = YAML(typ="safe").load(raw)
    except YAMLError as error:
        words = str(error).splitlines()[0]
        raise ParamsError(f"--set {wanted}: the value is not YAML: {words}; put quotes around a text") from None
    expected = YAML(typ="safe").load(text)
    below: Any = expected
    for part in parents:
        below = below[_same(below, part)]
    below[_same(below, last)] = value
    # As it was typed where it means the same there, else as JSON, which is YAML too.
    for words in (raw.strip(), json.dumps(value, ensure_ascii=False, default=str)):
        changed = _written(text, place, last, words)
        if words and _means(changed, expected):
            return changed
    raise ParamsError(f"--set {wanted}: {file} cannot hold this value there; edit the file")


def _names(place: Node) -> list[str]:
    return [str(key.value) for key, _ in place.value] if isinstance(place, MappingNode) else []


def _entry(place: Node, name: str) -> tuple[Node, Node] | None:
    entries = place.value if isinstance(place, MappingNode) else []
    return next(((key, value) for key, value in entries if str(key.value) == name), None)


def _same(mapping: dict[Any, Any], name: str) -> Any:
    """Return the key that is written as `name`, which may be a number."""
    return next((key for key in mapping if str(key) == name), YAML(typ="safe").load(name))


def _means(text: str, expected: Any) -> bool:
    try:
        return bool(YAML(typ="safe").load(text) == expected)
    except YAMLError:
        return False


def _written(text: str, place: MappingNode, name: str, words: str) -> str:
    """Return `text` with `words` as the value of `name` in a mapping, which may be new there."""
    entry = _entry(place, name)
    if entry is None:
        end = _end(text, place)
        if place.flow_style:
            return f"{text[: end - 1]}{', ' if place.value else ''}{name}: {words}{text[end - 1 :]}"
        line_end = _line_end(text, end)
        return f"{text[:line_end]}{_newline(text)}{' ' * place.start_mark.column}{name}: {words}{text[line_end:]}"
    key, value = entry
    start, end = value.start_mark.index, _end(text, value)
    after_key = text.index(":", key.end_mark.index) + 1
    if isinstance(value, CollectionNode) and not value.flow_style:  # on lines of its own, which go
        line_start = text.rindex(_newline(text), 0, start)
        return f"{text[:after_key]} {words}{text[after_key:line_start]}{text[_line_end(text, end) :]}"
    return f"{text[:start]}{words}{text[end:]}" if end > start else f"{text[:after_key]} {words}{text[after_key:]}"


def _line_end(text: str, place: int) -> int:
    end = text.find(_newline(text), place)
    return len(text) if end < 0 else end


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _end(text: str, node: Node) -> int:
    """Return where a value ends, without the comments and empty lines after it."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(node, MappingNode) else last)
    end: int = node.end_mark.index
    if isinstance(node, ScalarNode) and node.style in BLOCK_SCALARS:
        end = node.start_mark.index + len(text[node.start_mark.index : end].rstrip())
    return end
