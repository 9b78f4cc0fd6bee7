"""Words spelled with shorter pieces: the same text in other pieces, within the length of a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.data.bpe import train_tokenizer
from tasks.data.byte_pairs import ids_of
from tasks.data.respelled import respelled, spellings_of
from tasks.data.tokens import TokenSet, rows_of
from tasks.files import read_json
from tests.conftest import tiny_tokenizer

WORDS = tiny_tokenizer(["greatly", "gre", "##atly", "acting"])
IDS = ids_of(WORDS)


def joined(spelling: tuple[int, ...], names: dict[int, str]) -> str:
    return "".join(names[number].removeprefix("##") for number in spelling)


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_another_spelling_is_the_same_text_without_the_piece(kind: str, tmp_path: Path) -> None:
    tokenizer = WORDS
    if kind == "bytes":
        train_tokenizer(["greatly acting greatly greater acting actor"] * 9, 270, tmp_path)
        tokenizer = read_json(tmp_path / "tokenizer.json")
    ids = ids_of(tokenizer)
    names = {number: name for name, number in ids.items()}
    spellings = spellings_of(tokenizer)
    assert any(spellings)
    for number, spelling in enumerate(spellings):
        if spelling:
            assert number not in spelling
            assert len(spelling) > 1
            assert joined(spelling, names) == names[number].removeprefix("##")


def test_longest_match_first_and_short_and_special_pieces_stay() -> None:
    spellings = spellings_of(WORDS)
    assert spellings[IDS["acting"]] == (IDS["act"], IDS["##ing"])
    assert spellings[IDS["greatly"]][0] == IDS["great"]
    for name in ("[CLS]", "[UNK]", "act", "##ing"):
        assert spellings[IDS[name]] == ()


def rows(*texts: str) -> TokenSet:
    ids = [[IDS[name] for name in text.split()] for text in texts]
    return TokenSet(np.concatenate(ids).astype(np.int32), np.cumsum([0, *map(len, ids)]))


def test_rows_keep_their_order_and_their_limit() -> None:
    tokens, spellings = rows("[CLS] acting act [SEP]", "acting acting acting", "act"), spellings_of(WORDS)
    every = respelled(tokens, spellings, 1.0, 5, 0)
    expected = rows("[CLS] act ##ing act [SEP]", "act ##ing act ##ing acting", "act")
    assert every.ids.tolist() == expected.ids.tolist()
    assert every.offsets.tolist() == expected.offsets.tolist()
    assert rows_of(every, np.array([2])).ids.tolist() == [IDS["act"]]
    untouched = respelled(tokens, spellings, 1.0, 1, 0)  # no room
    assert untouched.ids.tolist() == tokens.ids.tolist()


def test_a_share_is_drawn_from_the_seed() -> None:
    tokens, spellings = rows(*["acting act"] * 2000), spellings_of(WORDS)
    found = respelled(tokens, spellings, 0.1, 9, 1)
    assert 150 < len(found.ids) - len(tokens.ids) < 250
    assert found.ids.tolist() == respelled(tokens, spellings, 0.1, 9, 1).ids.tolist()
    assert found.ids.tolist() != respelled(tokens, spellings, 0.1, 9, 4).ids.tolist()
