"""A smaller WordPiece vocabulary spells the same words, with no unknown pieces where there were none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.data.byte_pairs import ids_of
from tasks.data.vocabulary import (
    check_prior,
    choose_pieces,
    count_pieces,
    kept_ids,
    most_kept,
    pieces_in_order,
    smaller_tokenizer,
    special_pieces,
    worth_of,
)
from tasks.errors import ParamsError
from tests.conftest import tiny_tokenizer
from tests.families import bytes_tokenizer

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


def more_rows(tokenizer: dict[str, Any], *added: str) -> dict[str, Any]:
    """Return a tokenizer with tokens as `add_tokens` adds them: with the next ids, beside its vocabulary."""
    first = max(ids_of(tokenizer).values()) + 1
    tokens = [{**tokenizer["added_tokens"][0], "id": first + i, "content": text} for i, text in enumerate(added)]
    return {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *tokens]}


@pytest.mark.parametrize("full", [FULL, bytes_tokenizer()], ids=["wordpiece", "bytes"])
@pytest.mark.parametrize("gone", [0, 1])
def test_added_tokens_stay_with_their_meaning(full: dict[str, Any], gone: int) -> None:
    full = more_rows(full, "<user>", "<place>")
    count, text = len(ids_of(full)), "films <user> go <place>"
    keep = kept_ids(full, np.zeros(count + 3, dtype=np.int64), count - gone, {"vocab_size": count + 3})
    student = smaller_tokenizer(full, keep)
    before, after = (Tokenizer.from_str(json.dumps(tokenizer)).encode(text) for tokenizer in (full, student))
    assert [keep[number] for number in after.ids] == [ids_of(full)[token] for token in after.tokens]
    assert {"<user>", "<place>"} <= set(after.tokens) & set(before.tokens)


@pytest.mark.parametrize("full", [FULL, bytes_tokenizer()], ids=["wordpiece", "bytes"])
def test_rows_that_are_no_token_go_first(full: dict[str, Any]) -> None:
    count = len(ids_of(full))
    config, counts = {"vocab_size": count + 20}, np.repeat([1, 0], [count, 20])
    for size in (count + 8, count):
        assert kept_ids(full, counts, size, config) == list(range(count))
    assert len(kept_ids(full, counts, count - 1, config)) == count - 1
    assert smaller_tokenizer(full, range(count + 8))["model"]["vocab"] == full["model"]["vocab"]


def test_ids_that_are_skipped_are_refused() -> None:
    vocab = {piece: number + (number > 50) for piece, number in FULL["model"]["vocab"].items()}
    with pytest.raises(ParamsError, match="has id 52, where 51 comes next"):
        pieces_in_order({**FULL, "model": {**FULL["model"], "vocab": vocab}})


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is not WordPiece"):
        pieces_in_order({"model": {"type": "BPE", "vocab": {}}, "added_tokens": []})


def test_a_prior_keeps_as_many_pieces_and_others() -> None:
    pieces = ["[PAD]", "[UNK]", "[unused1]", "a", "##a", "the", "of", "film", "plot", "software", "##ing"]
    counts = np.array([0, 0, 0, 9, 9, 40, 30, 20, 3, 0, 2])
    special = {"[PAD]", "[UNK]"}
    plain = choose_pieces(pieces, special, counts, 8)
    mixed = choose_pieces(pieces, special, counts, 8, worth_of(pieces, special, counts, 0.3))
    assert len(mixed) == len(plain) == 8
    worth = worth_of(pieces, special, counts, 0.3)
    assert worth.sum() == pytest.approx(1.0)
    assert worth[2] == 0.0  # reserved, and never seen
    place = pieces.index("software")
    expected = np.array([1.0 / (rank + 2.7) for rank in range(6)])
    assert worth[place] == pytest.approx(0.3 * expected[4] / expected.sum())
    assert pieces.index("plot") not in choose_pieces(pieces, special, counts * 100, 7)
    # as many stay as occur, one of them a piece that the data never had
    every = choose_pieces(pieces, special, counts, 11, worth_of(pieces, special, counts, 0.9))
    assert len(every) == len(choose_pieces(pieces, special, counts, 11))
    assert place in every


def test_a_prior_is_refused_where_the_order_of_pieces_says_nothing() -> None:
    with pytest.raises(ParamsError, match="vocabulary_prior is for WordPiece"):
        check_prior({"model": {"type": "BPE"}})
    assert kept_ids(FULL, count_pieces(np.arange(4, dtype=np.int32), len(PIECES)), 200, {}, 0.3)
