"""Texts as hurried people type them: the same texts again, with slips of the keyboard in a share of the words.

Every choice is drawn from the hash of the row's name, so a row has the same slips whatever other rows there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tasks.data.pairs import SECOND, SEPARATOR, holds_pairs, joined_texts

if TYPE_CHECKING:
    import pandas as pd

MIN_LETTERS: Final = 3  # in a shorter word a slip makes another word rather than a misspelt one
WORD: Final = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")
KEYBOARD: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
KINDS: Final = ("swap", "drop", "double", "neighbour")


def typo_set(frame: pd.DataFrame, word_share: float) -> pd.DataFrame:
    """Return the rows of a set with slips in their texts, in the same order.

    A row keeps its row_id, the name of the text without slips: so its predictions can be set beside that row's.
    """
    texts = [with_typos(text, word_share, row) for text, row in zip(joined_texts(frame), frame["row_id"], strict=True)]
    if not holds_pairs(frame):
        return frame.assign(text=texts)
    sides = [text.split(SEPARATOR) for text in texts]
    return frame.assign(**{column: [pair[place] for pair in sides] for place, column in enumerate(("text", SECOND))})


def with_typo_set(sets: Mapping[str, pd.DataFrame], data: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the sets of a run and, where `data.typos` asks for it, `<of>_typos`; `data` as plain values."""
    typos = data["typos"]
    made = {} if typos is None else {f"{typos['of']}_typos": typo_set(sets[typos["of"]], typos["word_share"])}
    return {**sets, **made}


def with_typos(text: str, word_share: float, seed: str) -> str:
    """Return `text` with one slip in each chosen word; every word of at least three letters is chosen with `word_share`.

    A slip swaps two letters, drops one, doubles one, or hits a neighbouring key (QWERTY); the first letter stays. The
    same `seed` chooses the same words and slips, and a larger share chooses those of a smaller one and more.
    """
    place = 0

    def typed(word: re.Match[str]) -> str:
        nonlocal place
        place += 1
        draw = hashlib.sha256(f"typos:{seed}:{place}".encode()).digest()
        if int.from_bytes(draw[:8]) / 2**64 >= word_share:
            return word[0]
        return _slip(word[0], KINDS[draw[8] % len(KINDS)], draw[9], draw[10])

    return WORD.sub(typed, text)


def _slip(word: str, kind: str, where: int, which: int) -> str:
    """Return a word with one slip at a letter after the first; always another word than before."""
    if kind == "swap":
        unequal = [at for at in range(1, len(word) - 1) if word[at] != word[at + 1]]
        if unequal:
            at = unequal[where % len(unequal)]
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    at = 1 + where % (len(word) - 1)
    near = _neighbours(word[at])
    if kind == "neighbour" and near:
        return word[:at] + near[which % len(near)] + word[at + 1 :]
    return word[:at] + word[at + 1 :] if kind == "drop" else word[: at + 1] + word[at:]


def _neighbours(letter: str) -> str:
    """Return the keys left and right of a letter, in its case; none for a letter that the keyboard has not."""
    for row in KEYBOARD:
        at = row.find(letter.lower())
        if at >= 0:
            near = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
            return near.upper() if letter.isupper() else near
    return ""
