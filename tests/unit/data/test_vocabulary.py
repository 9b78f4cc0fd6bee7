"""A smaller WordPiece vocabulary spells the same words, with no unknown pieces where there were none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.data.vocabulary import choose_pieces, count_pieces, most_kept, pieces_in_order, smaller_tokenizer, special_pieces
from tasks.errors import ParamsError
from tests.conftest import tiny_tokenizer

FULL = tiny_tokenizer(["acting", "greatly", "films"])
PIECES = pieces_in_order(FULL)
MUST = 5 + 52 + 10 + 2
SPECIAL = special_pieces(FULL)


def keep_of(text: str, size: int) -> list[int]:
    ids = np.array(Tokenizer.from_str(json.dumps(FULL)).encode(text).ids, dtype=np.int32)
    return choose_pieces(PIECES, special_pieces(FULL), count_pieces(ids, len(PIECES)), size)


@given(text=st.text("abcdefghij klmfilmactngdu.", max_size=60), size=st.integers(MUST, len(PIECES)))
def test_every_text_keeps_its_letters(text: str, size: int) -> None:
    smaller = Tokenizer.from_str(json.dumps(smaller_tokenizer(FULL, keep_of(text, size))))
    full = Tokenizer.from_str(json.dumps(FULL))
    spelled = "".join(piece.removeprefix("##") for piece in smaller.encode(text).tokens[1:-1])
    assert spelled == "".join(piece.removeprefix("##") for piece in full.encode(text).tokens[1:-1])
    used = set(full.encode(text).tokens) | set(smaller.encode(text).tokens)
    assert smaller.get_vocab_size() == min(
        size, MUST + len({piece for piece in used if len(piece.removeprefix("##")) > 1} - SPECIAL)
    )


def test_pieces_that_the_data_never_have_are_not_kept() -> None:
    counts = count_pieces(np.array(Tokenizer.from_str(json.dumps(FULL)).encode("films greatly").ids), len(PIECES))
    for size in (MUST + 2, len(PIECES)):
        assert {PIECES[i] for i in keep_of("films greatly", size)} - set(PIECES[:MUST]) == {"films", "greatly"}
    assert most_kept(FULL, counts, {}) == MUST + 2
    assert most_kept({"model": {"type": "Unigram"}, "pre_tokenizer": None}, counts, {}) is None


def test_frequent_pieces_stay_and_special_tokens_keep_their_place() -> None:
    keep = keep_of("films films greatly", MUST + 2)
    kept = [PIECES[i] for i in keep]
    assert {"films", "greatly"} <= set(kept)
    assert "acting" not in kept
    smaller = Tokenizer.from_str(json.dumps(smaller_tokenizer(FULL, keep)))
    assert smaller.encode("films").tokens == ["[CLS]", "films", "[SEP]"]
    assert smaller.encode("films").ids[0] == kept.index("[CLS]")


def test_too_small_a_vocabulary_is_refused_with_the_reason() -> None:
    with pytest.raises(ParamsError, match=f"alone are {MUST} pieces"):
        keep_of("film", 20)


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is not WordPiece"):
        pieces_in_order({"model": {"type": "BPE", "vocab": {}}})
