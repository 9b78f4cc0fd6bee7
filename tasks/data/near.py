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

from tasks.data.pairs import SEPARATOR

_EAST_ASIAN: Final = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: there each character counts as a word
_WORD: Final = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+")

Words = frozenset[str]


def words(text: str) -> Words:
    """Return the set of lower-case words of a text, punctuation left out; the text itself if it has no word.

    The words of a pair, which is one string here (`tasks.data.pairs`), are told apart by the text that they stand in.
    """
    first, separator, second = text.lower().partition(SEPARATOR)
    found = _WORD.findall(first) + [separator + word for word in _WORD.findall(second)]
    return frozenset(found) or frozenset([text.lower()])


def similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of two texts' sets of words, 0 to 1."""
    return _jaccard(words(first), words(second))


def near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of near-duplicate texts, each once."""
    return _pairs([words(text) for text in texts], threshold, first_held=None)


def near_held(texts: Sequence[str], held: Sequence[str], threshold: float) -> dict[int, int]:
    """Return index of a text -> smallest index of a held one it is a near-duplicate of; other texts are left out."""
    smallest: dict[int, int] = {}
    sets = [words(text) for text in [*texts, *held]]
    for place, other in _pairs(sets, threshold, first_held=len(texts)):
        smallest[place] = min(smallest.get(place, len(held)), other - len(texts))
    return smallest


def clusters(texts: Sequence[str], threshold: float) -> list[int]:
    """Return for each text the smallest index in its cluster: chains of near-duplicates are one cluster."""
    parent = list(range(len(texts)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for pair in near_pairs(texts, threshold):
        low, high = sorted(map(root, pair))
        parent[high] = low
    return [root(node) for node in range(len(texts))]


def _jaccard(first: Words, second: Words) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def _pairs(sets: Sequence[Words], threshold: float, first_held: int | None) -> Iterator[tuple[int, int]]:
    """Yield near-duplicate pairs; with `first_held`, only those of a row before it and a row from it on."""
    rarity = Counter(word for row in sets for word in row)
    index: dict[str, list[int]] = defaultdict(list)  # word -> rows that have it among their rarest, small sets first
    for row in sorted(range(len(sets)), key=lambda row: (len(sets[row]), row)):
        size = len(sets[row])
        smallest = math.ceil(threshold * size - 1e-9)
        rarest = sorted(sets[row], key=lambda word: (rarity[word], word))[: size - smallest + 1]
        seen: set[int] = set()
        for word in rarest:
            for other in reversed(index[word]):
                if len(sets[other]) < smallest:
                    break
                if other in seen or (first_held is not None and (row < first_held) == (other < first_held)):
                    continue
                seen.add(other)
                if _jaccard(sets[row], sets[other]) >= threshold:
                    yield min(row, other), max(row, other)
            index[word].append(row)
