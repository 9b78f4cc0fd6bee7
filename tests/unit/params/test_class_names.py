"""Names of classes: each a name of its own, for people and for data files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.errors import ParamsError
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, read_yaml

VALUES = read_yaml(Path(__file__).parents[3] / "params.yaml")


def _with(labels: dict[int, str]) -> ClassificationParams:
    params = check_params({**VALUES, "data": {**VALUES["data"], "labels": labels}}, "params.yaml")
    assert isinstance(params, ClassificationParams)
    return params


@pytest.mark.parametrize("second", ["spam", "Spam", "SPAM", pytest.param("spa\u0301m", id="nfd"), "spám", "s p  am"])
@pytest.mark.parametrize("first", ["spam", pytest.param("spám", id="nfc"), "s p am"])
def test_two_classes_that_read_alike_are_refused(first: str, second: str) -> None:
    kind = {"spam": 0, "Spam": 0, "SPAM": 0, "spa\u0301m": 1, "spám": 1, "s p  am": 2, "s p am": 2}
    if kind[first] != kind[second]:
        assert _with({0: first, 1: second}).data.labels == {0: first, 1: second}
        return
    words = f"params.yaml: data.labels: classes 0 and 1 are called {first!r} and {second!r}, which are one name but for"
    with pytest.raises(ParamsError, match=re.escape(words)):
        _with({0: first, 1: second})


@pytest.mark.parametrize("name", ["", " ", "good ", " good", "go\nod", "go\tod"])
def test_blank_names_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(f"params.yaml: data.labels: class 1 is called {name!r}; a name has letters")):
        _with({0: "bad", 1: name})


def test_names_that_are_numbers_of_other_classes_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml: data\.labels: the names 1, 0 are numbers of other classes"):
        _with({0: "1", 1: "0"})
    assert _with({0: "0", 1: "1"}).data.labels == {0: "0", 1: "1"}


@pytest.mark.parametrize("names", [("体育", "财经"), ("spam/ham", "spam ham"), ("1", "2"), ("😀", "😢"), ("C", "C++")])
def test_odd_names_are_names(names: tuple[str, str]) -> None:
    assert list(_with(dict(enumerate(names))).data.labels.values()) == list(names)


@pytest.mark.parametrize("columns", [{"label": "text"}, {"split": "label"}, {"split": "text"}])
def test_a_column_that_is_text_and_label_is_refused(columns: dict[str, str]) -> None:
    data = {**VALUES["data"], "columns": {**VALUES["data"]["columns"], **columns}}
    with pytest.raises(
        ParamsError, match=r"params\.yaml: data\.columns: text, label and split must be three columns, not 'text', "
    ):
        check_params({**VALUES, "data": data}, "params.yaml")
