"""Near-duplicates: texts whose sets of words have a Jaccard similarity (shared / all words) of at least a threshold.

Exact, by prefix filtering (Chaudhuri et al. 2006; Bayardo et al. 2007): order all words by rarity; two sets of at least
the similarity share one of their rarest few. Only such pairs, of like size, are compared in full.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

_EAST_ASIAN: Final = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: there each character counts as a word
_WORD: Final = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+")

Words = frozenset[str]


def words(text: str) -> Words:
    """Return the set of lower-case words of a text, punctuation left out; the text itself if it has no word."""
    return frozenset(_WORD.findall(text.lower())) or frozenset([text.lower()])


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' sets of words, 0 to 1."""
    return _jaccard(words(one), words(other))


def near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of near-duplicate texts, each once."""
    return _pairs([words(text) for text in texts], threshold, first_held=None)


def near_held(texts: Sequence[str], held: Sequence[str], threshold: float) -> dict[int, int]:
    """Return index of a text -> smallest index of a held one it is a near-duplicate of; other texts are left out."""
    found: dict[int, int] = {}
    sets = [words(text) for text in [*texts, *held]]
    for one, other in _pairs(sets, threshold, first_held=len(texts)):
        found[one] = min(found.get(one, len(held)), other - len(texts))
    return found


def clusters(texts: Sequence[str], threshold: float) -> list[int]:
    """Return for each text the smallest index in its cluster: chains of near-duplicates are one cluster."""
    parent = list(range(len(texts)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in near_pairs(texts, threshold):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(node) for node in range(len(texts))]


def _jaccard(one: Words, other: Words) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _pairs(sets: Sequence[Words], threshold: float, first_held: int | None) -> Iterator[tuple[int, int]]:
    """Yield near-duplicate pairs; with `first_held`, only those of a row before it and a row from it on."""
    rarity = Counter(word for row in sets for word in row)
    index: dict[str, list[int]] = defaultdict(list)  # word -> rows that have it among their rarest, small sets first
    for row in sorted(range(len(sets)), key=lambda row: (len(sets[row]), row)):
        mine = sets[row]
        smallest = math.ceil(threshold * len(mine) - 1e-9)
        rarest = sorted(mine, key=lambda word: (rarity[word], word))[: len(mine) - smallest + 1]
        seen: set[int] = set()
        for word in rarest:
            for other in reversed(index[word]):
                if len(sets[other]) < smallest:
                    break
                if other in seen or (first_held is not None and (row < first_held) == (other < first_held)):
                    continue
                seen.add(other)
                if _jaccard(mine, sets[other]) >= threshold:
                    yield min(row, other), max(row, other)
            index[word].append(row)
