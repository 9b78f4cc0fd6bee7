"""What data is like, and when new data is not like it any more."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from tasks.data.profile import REST, WORDS, Limits, changes, divergence, profile_of

LIMITS = Limits(label_share=0.1, length=0.3, rows_lost=0.3, divergence=0.05)
ENGLISH = ["a fine film", "a dull film", "what a fine plot", "the plot is dull and slow"]
GERMAN = ["ein feiner Film", "ein \u00f6der Film", "welch ein feines Werk", "das Werk ist langsam und \u00f6de"]


def drawn(texts: list[str], count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(texts) for _ in range(3)) for _ in range(count)]


def labels(count: int, positive: float) -> list[str]:
    return ["positive" if i < positive * count else "negative" for i in range(count)]


def test_a_profile_is_plain_numbers() -> None:
    found = profile_of(["A fine film", "a film"], ["1", "0"])
    assert found["rows"] == 2
    assert found["labels"] == {"0": 0.5, "1": 0.5}
    assert found["words"] == {"a": 0.4, "film": 0.4, "fine": 0.2}
    assert found["characters"]["p50"] == 8.5
    assert sum(found["letters"].values()) == pytest.approx(1.0)


def test_rare_words_are_one_share() -> None:
    found = profile_of([" ".join(f"w{i}" for i in range(2 * WORDS))], [])
    assert len(found["words"]) == WORDS + 1
    assert found["words"][REST] == pytest.approx(0.5)


def test_the_divergence_is_that_of_scipy_where_both_name_the_same_words() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q = rng.dirichlet(np.ones(7), 2)
        before, after = ({str(i): float(share) for i, share in enumerate(shares)} for shares in (p, q))
        assert divergence(before, after) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert divergence({"a": 1.0}, {"a": 1.0}) == 0.0
    assert divergence({"a": 1.0}, {"b": 1.0}) == 1.0
    assert divergence({}, {}) == 0.0


def test_the_same_kind_of_data_is_as_before_however_few_or_many_rows() -> None:
    before = profile_of(drawn(ENGLISH, 400), labels(400, 0.5))
    for count in (300, 400, 4000):
        assert changes(before, profile_of(drawn(ENGLISH, count, 1), labels(count, 0.55)), LIMITS) == []


@pytest.mark.parametrize(
    ("texts", "given", "words"),
    [
        (drawn(ENGLISH, 400, 1), labels(400, 0.7), "label positive: 50.0% of the rows before, 70.0% now; at most 10 points"),
        (drawn(ENGLISH, 400, 1), ["positive"] * 400, "labels: negative gone"),
        (drawn(ENGLISH, 400, 1), [*labels(398, 0.5), "mixed", "mixed"], "labels: mixed new"),
        (drawn(ENGLISH, 200, 1), labels(200, 0.5), "rows: 400 before, 200 now; at most 30% may be lost"),
        ([text * 2 for text in drawn(ENGLISH, 400, 1)], labels(400, 0.5), "length: the median text had"),
        (drawn(GERMAN, 400, 1), labels(400, 0.5), "most gained: ein, "),
        (drawn(GERMAN, 400, 1), labels(400, 0.5), "letters: "),
    ],
)
def test_each_kind_of_change_is_said_with_its_numbers(texts: list[str], given: list[str], words: str) -> None:
    before = profile_of(drawn(ENGLISH, 400), labels(400, 0.5))
    assert any(words in line for line in changes(before, profile_of(texts, given), LIMITS))


def test_a_change_of_everything_is_said_at_once() -> None:
    before = profile_of(drawn(ENGLISH, 400), labels(400, 0.5))
    found = changes(before, profile_of([text * 3 for text in drawn(GERMAN, 100)], labels(100, 0.9)), LIMITS)
    assert [line.partition(":")[0] for line in found] == [
        "label negative",
        "label positive",
        "rows",
        "length",
        "words",
        "letters",
    ]
