"""Which rows belong to which slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measuring.slices import LENGTHS, document_frequency, is_negated, masks_of, rarity, slice_names, slices_of, words


def test_words_are_lower_case_and_keep_apostrophes():
    assert words("It\N{RIGHT SINGLE QUOTATION MARK}s NOT 3, don't-you?") == ["it's", "not", "don't", "you"]


@pytest.mark.parametrize("text", ["not bad", "I can't", "it is n't good", "never", "without charm", "hardly any"])
def test_negations(text):
    assert is_negated(words(text))


@pytest.mark.parametrize("text", ["", "a knot", "nothingness", "notable and normal", "tent"])
def test_words_that_only_look_like_negations(text):
    assert not is_negated(words(text))


def test_document_frequency_counts_texts_not_words():
    assert document_frequency(["a a b", "a c"]) == {"a": 2, "b": 1, "c": 1}


def test_rarity_does_not_grow_with_length():
    frequency = {"common": 1000, "rare": 0}
    short = ["rare", *(f"w{i}" for i in range(9))]
    assert rarity(["rare"], frequency) == 0.0
    assert rarity(short, {f"w{i}": 1000 for i in range(9)}) == 0.0
    known = {f"w{i}": 1000 for i in range(99)}
    assert rarity(["rare", *known], known) < rarity(short, known)
    assert rarity([], frequency) == -np.inf


def test_slices_of_a_small_set():
    texts = ["good film", "a not so very good film", "zyzzyva", "a film as good as a film can ever be"]
    frequency = document_frequency(["a good film", "so very good", "not as good", "can ever be"])
    found = slices_of(texts, [1, 0, 0, 1], ["x", "x", "y", "x"], ["neg", "pos"], frequency, 0.25)
    assert found[0] == ["class:pos", "length:short", "source:x"]
    assert found[1] == ["class:neg", "length:medium", "negation", "source:x"]
    assert found[2] == ["class:neg", "length:short", "tokens:rare", "source:y"]
    assert found[3] == ["class:pos", "length:long", "source:x"]


@given(st.lists(st.text(max_size=40), max_size=40), st.floats(0.0, 1.0))
def test_every_row_has_one_class_one_length_one_source(texts, share):
    rows = slices_of(texts, [0] * len(texts), ["s"] * len(texts), ["a", "b"], {}, share)
    names = slice_names(["a", "b"], ["s"])
    masks = masks_of(rows, names)
    assert len(rows) == len(texts)
    assert all(set(row) <= set(names) for row in rows)
    assert sum(masks[name].sum() for name in LENGTHS) == len(texts)
    assert masks["overall"].sum() == masks["class:a"].sum() == masks["source:s"].sum() == len(texts)
    assert masks["class:b"].sum() == 0
    assert masks["tokens:rare"].sum() <= round(share * len(texts))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_longer_rows_never_fall_into_a_shorter_tercile(lengths):
    rows = slices_of(["w " * n for n in lengths], [0] * len(lengths), [""] * len(lengths), ["a"], {}, 0.0)
    places = [next(i for i, name in enumerate(LENGTHS) if name in row) for row in rows]
    order = np.argsort(lengths, kind="stable")
    assert (np.diff(np.array(places)[order]) >= 0).all()
    pairs = set(zip(lengths, places, strict=True))
    assert len(pairs) == len(set(lengths)), "equal lengths share a tercile"
