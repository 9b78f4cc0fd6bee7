"""Which column is what, and which tables are of another task."""

from __future__ import annotations

import pytest

from tasks.drafting.raw import Raw
from tasks.drafting.roles import classes_of, find_roles
from tasks.errors import DataError

TEXTS = [f"a film about number {i} and its long story" for i in range(40)]


def table(**columns: list[str]) -> Raw:
    return Raw(columns, len(next(iter(columns.values()))))


def test_names_decide_and_values_where_no_name_does() -> None:
    named = table(id=[str(i) for i in range(40)], review=TEXTS, sentiment=["pos", "neg"] * 20, country=["de", "fr"] * 20)
    roles = find_roles(named)
    assert (roles.text, roles.label, roles.split) == ("review", "sentiment", None)
    assert roles.other_labels == ("country",)
    plain = table(a=[str(i) for i in range(40)], b=TEXTS, c=["x", "y", "z", "x"] * 10)
    assert (find_roles(plain).text, find_roles(plain).label) == ("b", "c")


def test_a_column_of_sets_is_no_label() -> None:
    roles = find_roles(table(text=TEXTS, part=["Train", "dev", "test", "train"] * 10, label=["0", "1"] * 20))
    assert (roles.label, roles.split) == ("label", "part")


def test_a_person_has_the_last_word() -> None:
    two = table(title=TEXTS, body=[text * 3 for text in TEXTS], label=["a", "b"] * 20)
    assert find_roles(two).text == "body"
    assert find_roles(two, text="title").text == "title"
    with pytest.raises(DataError, match=r"text=titel: there is no such column; did you mean 'title'"):
        find_roles(two, text="titel")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"premise": TEXTS, "hypothesis": TEXTS, "label": ["a", "b"] * 20}, "pairs of texts"),
        ({"text": TEXTS, "score": [str(i / 7) for i in range(40)]}, "a regression"),
        ({"text": TEXTS, "id": [str(i) + "x" for i in range(40)]}, "no column holds labels"),
        ({"label": ["a", "b"] * 20, "n": [str(i) for i in range(40)]}, "no column holds texts"),
    ],
)
def test_other_tasks_are_named(columns: dict[str, list[str]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_roles(table(**columns))


def test_spellings_of_a_class() -> None:
    names, rows = classes_of(["Spam", "spam", " spam ", "ham", "", "ham"])
    assert dict(rows) == {"ham": 2, "spam": 3}
    assert names["Spam"] == "spam"
    _, numbers = classes_of(["10", "2.0", "2", "1"])
    assert list(numbers) == ["1", "2", "10"]
