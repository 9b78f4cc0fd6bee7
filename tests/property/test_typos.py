"""Typos: always the same for a row, in about the share of words that is asked, each one slip of a keyboard."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.typos import MIN_LETTERS, WORD, typo_set, with_typo_set, with_typos

TEXTS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCÉéñß  \n.,'\"0123-_", max_size=80)
SHARES = st.floats(0.0, 1.0)


@given(TEXTS, SHARES, st.text(max_size=16))
def test_the_same_row_always_has_the_same_typos(text: str, share: float, seed: str) -> None:
    assert with_typos(text, share, seed) == with_typos(text, share, seed)
    assert with_typos(text, 0.0, seed) == text


@given(TEXTS, st.text(max_size=16))
def test_every_word_has_one_slip_and_nothing_else_changes(text: str, seed: str) -> None:
    typed = with_typos(text, 1.0, seed)
    assert WORD.sub("", typed) == WORD.sub("", text) or any(len(word) == MIN_LETTERS for word in WORD.findall(text))
    for before, after in zip(text.split(), typed.split(), strict=True):
        words = WORD.findall(before)
        assert abs(len(before) - len(after)) <= len(words)
        assert (before == after) == (not words)
        assert before[:1] == after[:1]


@given(TEXTS, SHARES, SHARES, st.text(max_size=16))
def test_a_larger_share_keeps_the_typos_of_a_smaller_one(text: str, one: float, other: float, seed: str) -> None:
    small, large = sorted((one, other))
    fewer, more = (with_typos(text, share, seed).split() for share in (small, large))
    for before, some, all_ in zip(text.split(), fewer, more, strict=True):
        assert before == some or len(WORD.findall(before)) > 1 or some == all_


def test_the_share_of_words_is_what_is_asked() -> None:
    rows = [f"{'word ' * 20}number {row}" for row in range(1000)]
    changed = sum(
        a != b
        for row, text in enumerate(rows)
        for a, b in zip(text.split(), with_typos(text, 0.1, str(row)).split(), strict=True)
    )
    assert changed / (1000 * 21) == pytest.approx(0.1, abs=0.01)


def test_a_typo_set_has_the_rows_of_its_set_in_their_order() -> None:
    frame = pd.DataFrame({"row_id": ["a", "b"], "text": ["a wonderful film", "no"], "label": [1, 0], "source": "home"})
    made = typo_set(frame, 1.0)
    assert made.drop(columns="text").equals(frame.drop(columns="text"))
    assert made["text"].tolist() == [with_typos("a wonderful film", 1.0, "a"), "no"]
    sets = with_typo_set({"test": frame}, {"typos": {"of": "test", "word_share": 1.0}})
    assert list(sets) == ["test", "test_typos"]
    assert with_typo_set({"test": frame}, {"typos": None}) == {"test": frame}
