"""What data is like, in a few numbers: to tell whether new data is still what the pipeline was accepted for.

Words and letters are compared by the Jensen-Shannon divergence of their shares (Lin 1991, doi:10.1109/18.61115), in bits: 0 for
equal shares, 1 for texts that have none in common.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypedDict

import numpy as np

WORDS: Final = 200  # the most frequent ones; what is left is one share
CHARACTERS: Final = 300
QUANTILES: Final = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
WORD: Final = re.compile(r"\w+")
REST: Final = ""  # stands for all that is not among the most frequent


class Profile(TypedDict):
    """Rows of the file; shares of its labels; lengths in characters; shares of words and letters, the most frequent first."""

    rows: int
    labels: dict[str, float]
    characters: dict[str, float]
    words: dict[str, float]
    letters: dict[str, float]


class Limits(TypedDict):
    """How far new data may be from that before; shares are absolute, `length` and `rows` of what was before."""

    label_share: float
    length: float
    rows_lost: float
    divergence: float


def profile_of(texts: Sequence[str], labels: Iterable[object]) -> Profile:
    """Return what texts and their labels are like; `labels` is empty where there are none."""
    counted = Counter(str(label) for label in labels)
    lengths = np.array([len(text) for text in texts] or [0])
    lower = [text.casefold() for text in texts]
    words = Counter(word for text in lower for word in WORD.findall(text))
    counts: Counter[str] = Counter()
    for text in lower:
        counts.update(text)
    letters = Counter({letter: count for letter, count in counts.items() if letter.isalpha()})
    return {
        "rows": len(texts),
        "labels": {label: round(count / counted.total(), 6) for label, count in sorted(counted.items())},
        "characters": {name: float(np.quantile(lengths, at)) for name, at in QUANTILES.items()},
        "words": _shares(words, WORDS),
        "letters": _shares(letters, CHARACTERS),
    }


def _shares(counted: Counter[str], most: int) -> dict[str, float]:
    """Return the shares of the most frequent ones, and of the rest; ties by their own order."""
    total = max(1, counted.total())
    first = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]
    rest = counted.total() - sum(count for _, count in first)
    return {**{word: round(count / total, 8) for word, count in first}, **({REST: round(rest / total, 8)} if rest else {})}


def divergence(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon divergence of two tables of shares in bits, from 0 to 1.

    What only one table names counts as absent from the other one, where it is rare.
    """
    names = sorted(before.keys() | after.keys())
    return max(0.0, sum(_part(before.get(name, 0.0), after.get(name, 0.0)) for name in names))


def _part(p: float, q: float) -> float:
    middle = (p + q) / 2
    return sum(0.5 * one * math.log2(one / middle) for one in (p, q) if one > 0)


def changes(before: Profile, after: Profile, limits: Limits) -> list[str]:
    """Return a sentence for each limit that new data breaks, with the numbers and the key; none when it is as before."""
    found = []
    if set(before["labels"]) != set(after["labels"]):
        gone, new = sorted(set(before["labels"]) - set(after["labels"])), sorted(set(after["labels"]) - set(before["labels"]))
        words = [f"{', '.join(names)} {verb}" for names, verb in ((gone, "gone"), (new, "new")) if names]
        found.append(f"labels: {' and '.join(words)}")
    for label in sorted(set(before["labels"]) & set(after["labels"])):
        was, now = before["labels"][label], after["labels"][label]
        if abs(now - was) > limits["label_share"]:
            found.append(
                f"label {label}: {was:.1%} of the rows before, {now:.1%} now; at most {100 * limits['label_share']:g} points of "
                "change are allowed (label_share)"
            )
    if after["rows"] < before["rows"] * (1 - limits["rows_lost"]):
        found.append(
            f"rows: {before['rows']:,} before, {after['rows']:,} now; at most {limits['rows_lost']:.0%} may be lost (rows_lost)"
        )
    was, now = before["characters"]["p50"], after["characters"]["p50"]
    if abs(now - was) > limits["length"] * was:
        found.append(
            f"length: the median text had {was:.0f} characters and has {now:.0f}; at most {limits['length']:.0%} of change is "
            "allowed (length)"
        )
    for name in ("words", "letters"):
        apart = divergence(before[name], after[name])
        if apart > limits["divergence"]:
            found.append(
                f"{name}: {apart:.3f} bits of Jensen-Shannon divergence from those before; at most {limits['divergence']:g} is "
                f"allowed (divergence){_newcomers(before, after) if name == 'words' else ''}"
            )
    return found


def _newcomers(before: Profile, after: Profile) -> str:
    """Return the words that have gained most, for a person to see at once what the new texts are."""
    gained = {word: share - before["words"].get(word, 0.0) for word, share in after["words"].items() if word != REST}
    most = sorted(gained, key=lambda word: (-gained[word], word))[:5]
    return f"; most gained: {', '.join(most)}"
