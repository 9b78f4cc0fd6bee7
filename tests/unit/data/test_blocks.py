"""Documents into sets and blocks: nothing lost, nothing twice, the same for the same texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.blocks import block_ids, pack, plan_blocks
from tasks.data.bpe import END, train_tokenizer
from tasks.data.documents import make_document_sets, read_documents, tidy, unique_documents
from tasks.errors import DataError
from tests.families import bytes_tokenizer

DATA = {"text_sources": None, "splits": {"validation": 0.2, "test": 0.2}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(json.dumps(bytes_tokenizer()))
    return path


@given(texts=st.lists(st.text("abc th", max_size=12), max_size=12), length=st.integers(2, 9))
def test_blocks_are_the_stream_of_documents_cut_at_the_length(tokenizer: Path, texts: list[str], length: int) -> None:
    whole = pack(texts, tokenizer, 99, 1).ravel().tolist()
    assert whole.count(99) == len(texts)
    blocks = pack(texts, tokenizer, 99, length)
    assert blocks.dtype == np.int32
    assert blocks.shape == (len(whole) // length, length)
    assert blocks.ravel().tolist() == whole[: blocks.size]
    assert pack(texts, tokenizer, 99, length, most=2).tolist() == blocks[:2].tolist()
    assert len(set(block_ids(blocks))) == len(blocks)


@given(count=st.integers(1, 30), wanted=st.integers(1, 90), batch=st.integers(1, 8))
def test_a_budget_in_tokens_is_spent_in_whole_passes(count: int, wanted: int, batch: int) -> None:
    batches = plan_blocks(count, wanted * 16, 16, batch, seed=3)
    rows = np.concatenate(batches)
    assert len(rows) == wanted
    assert max(map(len, batches)) <= batch
    seen = np.bincount(rows, minlength=count)
    assert seen.max() - seen.min() <= 1
    assert [one.tolist() for one in plan_blocks(count, wanted * 16, 16, batch, seed=3)] == [b.tolist() for b in batches]


def test_a_trained_tokenizer_writes_every_text_and_knows_the_end(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    train_tokenizer(["the cat sat on the mat"] * 20, 262, tmp_path)
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert ours.token_to_id(END) == 0
    assert ours.get_vocab_size() == 262
    text = "the £3 cat\nsat"
    assert ours.decode(ours.encode(text).ids) == text
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert stock(text)["input_ids"] == ours.encode(text).ids
    assert stock.eos_token == END


def documents(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"document number {i}" for i in range(count)], "source": "here"})


def test_a_document_stays_in_its_set_when_others_come_or_the_order_changes() -> None:
    few = make_document_sets(documents(40), {}, DATA)
    many = make_document_sets(documents(80).iloc[::-1], {}, DATA)
    for name in ("train", "validation", "test"):
        assert set(few[name]["row_id"]) <= set(many[name]["row_id"])
    again = make_document_sets(documents(40), {}, DATA)
    assert all(few[name].equals(again[name]) for name in few)


def test_a_further_set_holds_no_document_of_the_main_one() -> None:
    other = pd.DataFrame({"text": ["Document  number 3", "", "something else", "something else"], "source": "there"})
    sets = make_document_sets(documents(40), {"news": other}, DATA)
    assert sets["news"]["text"].tolist() == ["something else"]
    assert len(unique_documents(other)) == 2
    with pytest.raises(DataError, match="set news has no document"):
        make_document_sets(documents(40), {"news": other.head(2)}, DATA)
    with pytest.raises(DataError, match=r"text_sources: no document has the source 'film'; there are here"):
        make_document_sets(documents(4), {}, {**DATA, "text_sources": ["film"]})


def test_tables_and_folders_are_not_confused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a\r\nb  \n")
    found = read_documents(tmp_path, None, "data")
    assert found.to_dict("records") == [{"text": "a\nb", "source": "."}]
    with pytest.raises(DataError, match=r"holds .txt files, which have no columns; write columns: null"):
        read_documents(tmp_path, {"text": "text", "source": None}, "data")
    (tmp_path / "rows.csv").write_text("body\nhello\n")
    with pytest.raises(DataError, match=r"data.columns: rows.csv is a table; name its columns"):
        read_documents(tmp_path, None, "data")
    with pytest.raises(DataError, match="no column 'text'"):
        read_documents(tmp_path, {"text": "text", "source": None}, "data")
    assert read_documents(tmp_path, {"text": "body", "source": None}, "data")["source"].tolist() == ["data"]


def test_tidying_twice_changes_nothing() -> None:
    text = "a<br /><br />b \r\n c\n"
    assert tidy(text) == "a\n\nb\n c"
    assert tidy(tidy(text)) == tidy(text)


def test_a_new_vocabulary_has_no_piece_that_the_texts_never_have(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"teacher\.new\.vocabulary: 400 pieces are asked, and the 20 .* give 269; ask for at most"
    ):
        train_tokenizer(["the cat sat on the mat"] * 20, 400, tmp_path)
    assert not list(tmp_path.iterdir())
