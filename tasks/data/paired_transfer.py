"""The transfer set of pairs: unlabelled pairs on which a student imitates its teacher.

Pairs of the sources asked for that no labelled set uses, and pairs made of training rows, in three kinds of one share each: a
pair of which one side is cut, or ends as that side of another pair does; a first text with a near second text, the one of another
group that shares most with it; and a first text with any second text of another group. Random partners alone are nearly all of
one class, and near ones are what models err on. No row has a held-out first text, nor is nearly equal to a held-out pair.
Source of near partners: Augmented SBERT, Thakur et al., arXiv:2010.08240.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Final

import pandas as pd

from tasks.data.clean import hash_order, row_id
from tasks.data.frames import COLUMNS, NO_LABEL
from tasks.data.near import near_held, words
from tasks.data.pairs import GROUP, PAIR_COLUMNS, SECOND, join, joined_texts
from tasks.data.transfer import MOST_TURNS, SPLICED, splice
from tasks.errors import DataError

RAREST: Final = 4  # words of a first text by which its partners are looked for
MOST_PARTNERS: Final = 100  # that have such a word and are compared; the first in hash order

Pair = tuple[str, str, str]  # first text, second text, group of the first


def paired_transfer(
    rest: pd.DataFrame, train: pd.DataFrame, held: pd.DataFrame, wanted: Mapping[str, Any], threshold: float
) -> pd.DataFrame:
    """Return the transfer rows that `wanted` (the section data.transfer) asks for, with the columns of a set of pairs.

    `rest` are the rows no labelled set uses, `held` the held-out ones. Raises DataError if there is no pair of the sources.
    """
    taken, texts, groups = set(train["row_id"]), joined_texts(held), set(held[GROUP])
    of_sources = _of_sources(rest[~rest[GROUP].isin(groups)], wanted)
    chosen = _new(of_sources, wanted["rows"], taken, texts, threshold)
    if wanted["rows"] and not chosen:
        raise DataError(
            f"data.transfer: no pair of {wanted['min_words']} to {wanted['max_words']} words is left in sources "
            f"{', '.join(wanted['sources']) or '(none)'}; name a source, widen the limits, or set rows: 0."
        )
    pairs = sorted(zip(train["text"], train[SECOND], train[GROUP], strict=True))
    kinds = (_cut_pairs(pairs), _near_pairs(pairs), _random_pairs(pairs))
    for place, kind in enumerate(kinds):
        count = wanted["spliced_rows"] // len(kinds) + (place < wanted["spliced_rows"] % len(kinds))
        made = ((pair, SPLICED) for pair in kind if pair[2] not in groups)
        chosen |= _new(made, count, taken | set(chosen), texts, threshold)
    rows = [(row, first, NO_LABEL, source, second, group) for row, ((first, second, group), source) in chosen.items()]
    return pd.DataFrame(rows, columns=[*COLUMNS, *PAIR_COLUMNS]).astype({"label": "int64"})


def _of_sources(rest: pd.DataFrame, wanted: Mapping[str, Any]) -> Iterator[tuple[Pair, str]]:
    """Yield the pairs of the sources that have as many words, both texts together, as are asked for; in the order of row ids."""
    donors = rest[rest["source"].isin(wanted["sources"])].sort_values("row_id")
    for first, second, group, source in zip(donors["text"], donors[SECOND], donors[GROUP], donors["source"], strict=True):
        if wanted["min_words"] <= len(first.split()) + len(second.split()) <= wanted["max_words"]:
            yield (first, second, group), source


def _cut_pairs(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield pairs one side of which, by hash, is cut or ends as that side of another pair."""
    for turn in range(MOST_TURNS):
        for (first, second, group), other in pairwise(_ordered(pairs, f"cut {turn}")):
            cuts = hash_order(join(first, second), f"cut {turn}")
            side = int(cuts[16:24], 16) % 2
            made = splice((first, second)[side].split(), other[side].split(), cuts)
            yield (made, second, row_id(made)) if side == 0 else (first, made, group)


def _near_pairs(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield first texts, each once, with the second text of another group that shares most with it, in hash order.

    What two texts share is the sum over their common words of -log(share of the second texts that have the word), over the root
    of the number of words of the second.
    """
    groups: dict[str, set[str]] = defaultdict(set)  # second text -> the groups in which it stands
    for _, second, group in pairs:
        groups[second].add(group)
    seconds = sorted(groups, key=lambda text: hash_order(text, "partner"))
    sets = [words(text) for text in seconds]
    counts = Counter(word for found in sets for word in found)
    rarity = {word: -math.log(count / (len(sets) + 1)) for word, count in counts.items()}
    having: dict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(sets):
        for word in found:
            if len(having[word]) < MOST_PARTNERS:
                having[word].append(number)
    firsts = {first: group for first, _, group in pairs}
    for first in sorted(firsts, key=lambda text: hash_order(text, "near")):
        own = words(first) & rarity.keys()
        rarest = sorted(own, key=lambda word: (-rarity[word], word))[:RAREST]
        near = {number for word in rarest for number in having[word] if firsts[first] not in groups[seconds[number]]}
        scored = [(sum(rarity[word] for word in own & sets[number]) / math.sqrt(len(sets[number])), -number) for number in near]
        if scored:
            yield first, seconds[-max(scored)[1]], firsts[first]


def _random_pairs(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield first texts with the second text of a pair of another group, as the order of hashes has it."""
    for turn in range(MOST_TURNS):
        for (first, _, group), (_, second, other) in pairwise(_ordered(pairs, f"random {turn}")):
            if group != other:
                yield first, second, group


def _ordered(pairs: Sequence[Pair], purpose: str) -> list[Pair]:
    return sorted(pairs, key=lambda pair: hash_order(join(pair[0], pair[1]), purpose))


def _new(
    candidates: Iterator[tuple[Pair, str]], count: int, taken: set[str], held: Sequence[str], threshold: float
) -> dict[str, tuple[Pair, str]]:
    """Return by row_id the first `count` candidates that are neither taken nor nearly equal to a held-out pair."""
    chosen: dict[str, tuple[Pair, str]] = {}
    while len(chosen) < count:  # comparing all would take long, and most are not wanted
        missing = count - len(chosen)
        batch = list(islice(candidates, missing + missing // 50 + 100))
        if not batch:
            break
        texts = [join(first, second) for (first, second, _), _ in batch]
        near = near_held(texts, held, threshold)
        for place, (text, entry) in enumerate(zip(texts, batch, strict=True)):
            row = row_id(text)
            if place not in near and row not in taken and len(chosen) < count:
                chosen.setdefault(row, entry)
    return chosen
