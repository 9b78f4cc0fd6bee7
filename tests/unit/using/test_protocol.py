"""Requests of MLflow's scoring protocol: which texts they ask about, and the sentence for what is no such request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.using.protocol import Limits, RequestError, require_json, texts_of_body

TEXTS = ["a film", ""]


def texts_of(asked: Any, limits: Limits | None = None, usual: str | None = None) -> list[str]:
    return texts_of_body(json.dumps(asked).encode(), limits or Limits(), usual)


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": TEXTS},
        {"instances": TEXTS},
        {"inputs": TEXTS, "params": {"batch": 3}, "more": 1},
        {"inputs": {"text": TEXTS}},
        {"inputs": [{"text": text} for text in TEXTS]},
        {"dataframe_records": [{"id": 1, "text": text} for text in TEXTS]},
        {"dataframe_records": [{"0": text} for text in TEXTS]},
        {"dataframe_records": [{"id": 1, "review": text} for text in TEXTS]},
        {"dataframe_split": {"columns": ["id", "text"], "index": [0, 1], "data": [[1, text] for text in TEXTS]}},
        {"dataframe_split": {"columns": ["comment"], "data": [[text] for text in TEXTS]}},
        {"dataframe_split": {"data": [[text] for text in TEXTS]}},
    ],
)
def test_texts_are_found_in_each_form(asked: Any) -> None:
    assert texts_of(asked, usual="review") == TEXTS


def test_one_text_in_a_column_is_a_row() -> None:
    assert texts_of({"inputs": {"text": "a film"}}) == ["a film"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "the body is a list, not an object; write"),
        (3, "the body is a number"),
        ({}, "the body needs one of inputs, instances, dataframe_split, dataframe_records, and it has none of them"),
        ({"inputs": [], "instances": []}, "and it has inputs, instances"),
        ({"inputs": "a film"}, "inputs: is a string, not a list"),
        ({"inputs": None}, "inputs: is null, not a list"),
        ({"inputs": []}, "inputs: holds no text"),
        ({"inputs": {}}, "inputs: no column is called text (columns: none)"),
        ({"inputs": ["a", 3]}, "inputs: row 2: is a number, not a string"),
        ({"inputs": [["a"], ["b"]]}, "inputs: row 1: is a list, not a string"),
        ({"inputs": [{"text": "a"}, "b"]}, "inputs: row 2: is a string, not an object"),
        ({"inputs": ["half \ud83d"]}, "row 1: holds half of a surrogate pair"),
        ({"inputs": ["a"] * 4}, "inputs: 4 rows; at most 3 are answered at once"),
        ({"dataframe_records": {"text": ["a"]}}, "dataframe_records: is an object, not a list"),
        ({"dataframe_records": [{"text": "a"}, {"id": 3}]}, "dataframe_records: row 2: is null"),
        ({"dataframe_records": [{"id": 1, "body": "a"}]}, "dataframe_records: no column is called text (columns: id, body)"),
        ({"dataframe_records": [{"text": "a", "text_pair": "b"}]}, "column text_pair: answers to pairs"),
        ({"dataframe_split": [["a"]]}, "dataframe_split: is no object with a list called data"),
        ({"dataframe_split": {"columns": ["text"]}}, "is no object with a list called data"),
        ({"dataframe_split": {"columns": ["text"], "data": ["a"]}}, "each row is a list of cells"),
        ({"dataframe_split": {"columns": "text", "data": [["a"]]}}, "columns: are a list of names"),
        ({"dataframe_split": {"columns": [["text"]], "data": [["a"]]}}, "columns: are a list of names"),
        ({"dataframe_split": {"columns": ["id", "text"], "data": [[1, "a"], ["b"]]}}, "row 2: has 1 cells for 2 columns"),
        ({"dataframe_split": {"columns": ["text"], "data": []}}, "dataframe_split: holds no text"),
    ],
)
def test_what_is_no_such_request_is_a_sentence(asked: Any, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        texts_of(asked, Limits(rows=3))
    assert words in str(refused.value)
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"inputs=a", b"[" * 200_000, b'{"inputs": [' + b"9" * 9_000 + b"]}"])
def test_what_is_not_json_is_a_sentence(body: bytes) -> None:
    with pytest.raises(RequestError, match="the body is not JSON"):
        texts_of_body(body, Limits())


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_json_in_utf_8_is_read(kind: str) -> None:
    require_json(kind)


@pytest.mark.parametrize("kind", ["", "text/csv", "application/json; charset=latin-1", "application/json; pandas=split"])
def test_other_kinds_are_refused_as_mlflow_does(kind: str) -> None:
    with pytest.raises(RequestError, match="application/json is read here") as refused:
        require_json(kind)
    assert refused.value.status == 415
