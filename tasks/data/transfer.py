"""The transfer set: unlabelled text on which a student imitates its teacher.

Three kinds of rows. Sentences of texts that no labelled set uses; splices, the first words of one training sentence
followed by the last words of another: they keep the task's vocabulary, and what the teacher says of mixed and of cut-off
statements is more than the labels told; and broad text of other sources, which shows words that the task hardly has. A share of
all may be dressed (`tasks.data.surface`). No row is a near-duplicate of a held-out text.
Source of splicing: n-gram sampling in Tang et al., arXiv:1903.12136, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final

import pandas as pd

from tasks.data.clean import hash_order, row_id, sentences
from tasks.data.frames import COLUMNS, NO_LABEL
from tasks.data.near import near_held
from tasks.data.surface import dressed, plain_words
from tasks.errors import DataError

SPLICED: Final = "spliced"  # their `source`
MOST_TURNS: Final = 100  # through the training set, in search of new splices

Texts = dict[str, tuple[str, str]]  # row_id -> text and source


@dataclass(frozen=True)
class Dress:
    """Which share of rows is dressed, in which kinds of change, with which words; `kinds` is empty where none is."""

    share: float
    kinds: Sequence[str]
    words: Sequence[str]

    def of(self, row: str, text: str, source: str) -> tuple[str, tuple[str, str]]:
        """Return a row as it is learnt from: its row_id, and text and source; as hashes choose it is dressed or as it was."""
        if not self.kinds or int(hash_order(row, "surface")[:16], 16) >= self.share * 2**64:
            return row, (text, source)
        text = dressed(text, self.kinds, row, self.words)
        return row_id(text), (text, source)


def transfer_set(
    rest: pd.DataFrame,
    train: pd.DataFrame,
    held: list[str],
    wanted: Mapping[str, Any],
    threshold: float,
    broad: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """Return the transfer rows that `wanted` (the section data.transfer) asks for, with the columns `COLUMNS`.

    `rest` are the rows no labelled set uses, `held` the held-out texts, `broad` is name -> row_id -> text of other sources.
    Raises DataError if there is no sentence.
    """
    surface = wanted.get("surface") or {"share": 0.0, "kinds": ()}
    dress = Dress(surface["share"], surface["kinds"], plain_words(train["text"]) if surface["kinds"] else ())
    pieces = sorted({piece for text in held for piece in (text, *sentences(text))})
    taken = set(train["row_id"])
    chosen = _new_rows(_sentences(rest, wanted, taken), wanted["rows"], pieces, threshold, dress)
    if wanted["rows"] and not chosen:
        raise DataError(
            f"data.transfer: no sentence of {wanted['min_words']} to {wanted['max_words']} words is left in sources "
            f"{', '.join(wanted['sources']) or '(none)'}; name a source, widen the limits, or set rows: 0."
        )
    spliced = _splices(train, wanted["spliced_rows"], taken | set(chosen))
    chosen |= _new_rows(spliced, wanted["spliced_rows"], pieces, threshold, dress)
    for name, texts in (broad or {}).items():
        others = {row: (text, name) for row, text in texts.items() if row not in taken and row not in chosen}
        chosen |= _new_rows(others, wanted["broad"][name]["rows"], pieces, threshold, dress)
    rows = [(row, text, NO_LABEL, source) for row, (text, source) in chosen.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"label": "int64"})


def too_few(transfer: pd.DataFrame, wanted: Mapping[str, Any]) -> list[str]:
    """Return a line for each kind of transfer rows of which there are fewer than `wanted`."""
    broad, counts = wanted.get("broad") or {}, transfer["source"].value_counts()
    of_sources = {"spliced_rows": (int(counts.get(SPLICED, 0)), wanted["spliced_rows"])}
    of_sources |= {f"broad.{name}.rows": (int(counts.get(name, 0)), entry["rows"]) for name, entry in broad.items()}
    sentences_left = len(transfer) - sum(rows for rows, _ in of_sources.values())
    return [
        f"data.transfer.{key}: {rows:,} of the {asked:,} asked for; there are no more"
        for key, (rows, asked) in {"rows": (sentences_left, wanted["rows"]), **of_sources}.items()
        if rows < asked
    ]


def _sentences(rest: pd.DataFrame, wanted: Mapping[str, Any], taken: set[str]) -> Texts:
    """Return the sentences of the donors that have a length asked for, in the order of their row ids."""
    donors = rest[rest["source"].isin(wanted["sources"])]
    texts: Texts = {}
    for text, source in zip(donors["text"], donors["source"], strict=True):
        for sentence in sentences(text):
            if wanted["min_words"] <= len(sentence.split()) <= wanted["max_words"]:
                row = row_id(sentence)
                texts[row] = min(texts.get(row, (sentence, source)), (sentence, source))
    return {row: texts[row] for row in sorted(texts) if row not in taken}


def _splices(train: pd.DataFrame, count: int, taken: set[str]) -> Texts:
    """Return splices, some more than `count` where the training set gives them; chosen by hashes alone."""
    words = {row: text.split() for row, text in zip(train["row_id"], train["text"], strict=True)}
    texts: Texts = {}
    for turn in range(MOST_TURNS):
        if len(texts) >= count + count // 50:
            break
        order = sorted(words, key=lambda row: hash_order(row, f"splice {turn}"))
        for first, second in pairwise(order):
            text = splice(words[first], words[second], hash_order(first + second, f"cut {turn}"))
            row = row_id(text)
            if row not in taken:
                texts.setdefault(row, (text, SPLICED))
    return texts


def splice(first: list[str], second: list[str], cuts: str) -> str:
    """Return 1 or more first words of one text and none or more last words of the other, as the hex digits `cuts` say."""
    head = 1 + int(cuts[:8], 16) % len(first)
    tail = int(cuts[8:16], 16) % (len(second) + 1)
    return " ".join(first[:head] + second[len(second) - tail :])


def _new_rows(candidates: Texts, count: int, held: Iterable[str], threshold: float, dress: Dress) -> Texts:
    """Return the first `count` candidates that are, as they are dressed, no near-duplicate of a held-out text."""
    left, held = iter(candidates.items()), list(held)
    chosen: Texts = {}
    while len(chosen) < count:  # comparing all would take long, and most are not wanted
        missing = count - len(chosen)
        batch = [dress.of(row, *entry) for row, entry in islice(left, missing + missing // 50 + 100)]
        if not batch:
            break
        near = near_held([text for _, (text, _) in batch], held, threshold)
        chosen |= dict(islice((entry for place, entry in enumerate(batch) if place not in near), missing))
    return chosen
