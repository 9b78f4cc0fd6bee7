"""Rows of two texts: how they stand in frames, how one string holds both, and which of them belong together.

A set of pairs has, beside the columns of every set, `text_pair`, the second text, and `group`, the name that all rows of one
first text share. In a string the texts stand around `SEPARATOR`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tasks.artifacts import GROUP as GROUP
from tasks.artifacts import SECOND as SECOND

if TYPE_CHECKING:
    import pandas as pd

Text = str | tuple[str, str]  # as tokenizers take it
SEPARATOR: Final = "\x1f"  # cleaning takes it for white space, so no cleaned text holds it
PAIR_COLUMNS: Final = (SECOND, GROUP)


def join(first: str, second: str) -> str:
    """Return a pair as one string, which no other pair and no single text gives."""
    return f"{first}{SEPARATOR}{second}"


def parts(text: str) -> Text:
    """Return what `join` made a string of, or the string itself."""
    first, separator, second = text.partition(SEPARATOR)
    return (first, second) if separator else text


def shown(text: str) -> str:
    """Return a text, or a pair as one string, for people."""
    return text.replace(SEPARATOR, " | ")


def holds_pairs(frame: pd.DataFrame) -> bool:
    """Return whether the rows of a set are pairs."""
    return SECOND in frame


def texts_of(frame: pd.DataFrame) -> list[Text]:
    """Return the texts of a set in its order: strings, or pairs of strings."""
    first: list[Text] = frame["text"].tolist()
    return first if not holds_pairs(frame) else list(zip(frame["text"], frame[SECOND], strict=True))


def joined_texts(frame: pd.DataFrame) -> list[str]:
    """Return the texts of a set in its order, a pair as one string."""
    first: list[str] = frame["text"].tolist()
    return first if not holds_pairs(frame) else [join(*pair) for pair in zip(frame["text"], frame[SECOND], strict=True)]


def sets_mark(processor: Any) -> bool:
    """Return whether the post-processor of a tokenizer.json writes special tokens between the two texts of a pair."""
    kind = processor.get("type") if isinstance(processor, Mapping) else None
    if kind == "Sequence":
        return any(map(sets_mark, processor["processors"]))
    if kind == "TemplateProcessing":
        kinds = [(next(iter(step)), next(iter(step.values())).get("id")) for step in processor["pair"]]
        places = [place for place, entry in enumerate(kinds) if entry in (("Sequence", "A"), ("Sequence", "B"))]
        return len(places) == 2 and places[1] - places[0] > 1
    return kind in ("BertProcessing", "RobertaProcessing")


def swapped(texts: Sequence[tuple[str, str]]) -> list[Text]:
    """Return the pairs with their texts in the other order."""
    return [(second, first) for first, second in texts]


def tied(*names: Sequence[str]) -> list[str]:
    """Return a name for each row which it shares with exactly the rows that it hangs together with.

    Each of `names` calls every row something; two rows that one of them calls the same hang together, and so do those that are
    linked by others. The name is the smallest that the first of `names` calls one of them.
    """
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for row in zip(*names, strict=True):
        first, *others = (root((kind, name)) for kind, name in enumerate(row))
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [root((0, name))[1] for name in names[0]]
