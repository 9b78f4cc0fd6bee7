"""Which slices each row of an evaluation set belongs to, so that a loss cannot hide in an average."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.data.pairs import Text

OVERALL: Final = "overall"
LENGTHS: Final = ("length:short", "length:medium", "length:long")
# Of pairs: how long the second text is, and which share of its words the first one has too.
SECOND_LENGTHS: Final = ("second:short", "second:medium", "second:long")
OVERLAPS: Final = ("overlap:low", "overlap:medium", "overlap:high")
RARE: Final = "tokens:rare"
NEGATION: Final = "negation"
NEGATIONS: Final = re.compile(
    "no|not|never|none|nobody|nothing|neither|nor|nowhere|cannot|without|hardly|scarcely|barely|rarely|.*n't"
)
RAREST_SHARE: Final = 0.1  # of a row's distinct words: a share, or long texts would always be the rare ones
APOSTROPHE: Final = "\N{RIGHT SINGLE QUOTATION MARK}"
WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text; `don't` is one word."""
    return WORD.findall(text.lower().replace(APOSTROPHE, "'"))


def document_frequency(texts: Iterable[str]) -> Counter[str]:
    """Return in how many of the texts each word occurs."""
    return Counter(word for text in texts for word in set(words(text)))


def slice_names(label_names: Sequence[str], sources: Iterable[str], pairs: bool = False) -> list[str]:
    """Return every slice a set, or one of pairs, can have, `overall` first; also those that turn out to be empty."""
    return [
        OVERALL,
        *(f"class:{name}" for name in label_names),
        *LENGTHS,
        *((*SECOND_LENGTHS, *OVERLAPS) if pairs else ()),
        RARE,
        NEGATION,
        *(f"source:{name}" for name in sorted(set(sources))),
    ]


def slices_of(
    texts: Sequence[Text],
    labels: Sequence[int],
    sources: Sequence[str],
    label_names: Sequence[str],
    frequency: Mapping[str, int],
    rare_share: float,
) -> list[list[str]]:
    """Return for each row the names of its slices, `overall` left out; names as in `slice_names`.

    Lengths are the terciles, in words, of the rows given. `tokens:rare` is the share `rare_share` of the rows whose
    rarest words are rarest by `frequency`. A pair has the words of both its texts; `negation` is then that in the
    second.
    """
    sides = [[words(side) for side in ((text,) if isinstance(text, str) else text)] for text in texts]
    split, further = [[word for side in row for word in side] for row in sides], _of_pairs(sides)
    lengths = _terciles([len(row) for row in split])
    rare = _rarest_rows([rarity(row, frequency) for row in split], rare_share)
    rows = []
    for i in range(len(split)):
        names = [f"class:{label_names[labels[i]]}", LENGTHS[lengths[i]]]
        names += [RARE] if i in rare else []
        names += [NEGATION] if is_negated(sides[i][-1]) else []
        names += further[i]
        rows.append([*names, f"source:{sources[i]}"])
    return rows


def _of_pairs(split: Sequence[Sequence[Sequence[str]]]) -> list[list[str]]:
    """Return the slices that each pair is in by its second text, terciles of the rows given; of single texts there are none."""
    if any(len(sides) == 1 for sides in split):
        return [[] for _ in split]
    lengths = _terciles([len(second) for _, second in split])
    shared = [round(1000 * len(set(first) & set(second)) / max(1, len(set(second)))) for first, second in split]
    return [[SECOND_LENGTHS[length], OVERLAPS[place]] for length, place in zip(lengths, _terciles(shared), strict=True)]


def masks_of(rows: Sequence[Sequence[str]], names: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Return for each name the mask of the rows in that slice; `overall` holds every row."""
    return {name: np.array([name == OVERALL or name in row for row in rows], dtype=np.bool_) for name in names}


def is_negated(row: Iterable[str]) -> bool:
    """Return whether a list of words holds a negation: not, n't, never, without, hardly, ..."""
    return any(NEGATIONS.fullmatch(word) for word in row)


def rarity(row: Sequence[str], frequency: Mapping[str, int]) -> float:
    """Return the mean of -log(1 + frequency) over the rarest tenth of a row's distinct words; more is rarer.

    A row without words is the least rare: -infinity.
    """
    if not row:
        return -np.inf
    counts = np.sort([frequency.get(word, 0) for word in set(row)])
    rarest = counts[: max(1, round(RAREST_SHARE * len(counts)))]
    return float(-np.log1p(rarest).mean())


def _terciles(lengths: Sequence[int]) -> list[int]:
    """Return 0, 1 or 2 for each length; equal lengths always share a tercile."""
    if not lengths:
        return []
    bounds = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    return [int(place) for place in np.searchsorted(bounds, lengths, side="left")]


def _rarest_rows(rarities: Sequence[float], share: float) -> set[int]:
    order = np.argsort(-np.asarray(rarities, dtype=np.float64), kind="stable")
    return {int(row) for row in order[: round(share * len(order))] if rarities[row] > -np.inf}
