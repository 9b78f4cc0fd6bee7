"""Sets: fixed by content, disjoint, and near-duplicates stay together."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.frames import NO_LABEL
from tasks.data.near import clusters, near_held, near_pairs, similarity
from tasks.data.splits import make_sets, split_of
from tasks.data.transfer import too_few
from tasks.errors import DataError

WORDS = [f"{a}{b}" for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "un", "ar", "el")]
DATA: dict[str, Any] = {
    "columns": {"text": "text", "label": "label", "source": "source", "split": None},
    "labels": {0: "negative", 1: "positive"},
    "task_sources": ["home"],
    "splits": {"validation": 0.2, "test": 0.2},
    "near_duplicate_similarity": 0.9,
    "transfer": {"sources": ["away"], "min_words": 3, "max_words": 12, "rows": 40, "spliced_rows": 30},
    "evaluation_sets": {"far": {"sources": ["away"], "rows": 10}},
    "calibration_rows": 20,
}
SHARES = DATA["splits"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=6).map(" ".join), max_size=25)


def _sentence(rng: random.Random, words: int = 8) -> str:
    return " ".join(rng.sample(WORDS, words))


def _raw(seed: int, home: int = 150, away: int = 60) -> pd.DataFrame:
    rng = random.Random(seed)
    texts = [_sentence(rng) for _ in range(home)]
    texts += [". ".join(_sentence(rng, 6).capitalize() for _ in range(3)) + "." for _ in range(away)]
    rows = {"text": texts, "label": [i % 2 for i in range(home + away)], "split": ""}
    return pd.DataFrame(rows | {"source": ["home"] * home + ["away"] * away})


@given(TEXTS, st.sampled_from([0.55, 0.75, 0.9, 1.0]))
def test_near_pairs_are_exactly_those_of_comparing_all(texts: list[str], threshold: float) -> None:
    everyone = {pair for pair in combinations(range(len(texts)), 2) if similarity(texts[pair[0]], texts[pair[1]]) >= threshold}
    found = list(near_pairs(texts, threshold))
    assert set(found) == everyone
    assert len(found) == len(everyone)


@given(TEXTS, TEXTS, st.sampled_from([0.55, 0.75, 0.9]))
def test_near_held_is_exactly_that_of_comparing_all(texts: list[str], held: list[str], threshold: float) -> None:
    expected = {}
    for place, text in enumerate(texts):
        near = [other for other, one in enumerate(held) if similarity(text, one) >= threshold]
        if near:
            expected[place] = near[0]
    assert near_held(texts, held, threshold) == expected


@given(st.integers(0, 10**6))
def test_near_duplicates_share_a_split(seed: int) -> None:
    rng = random.Random(seed)
    texts = [_sentence(rng, 24) for _ in range(20)]
    texts += [" ".join(["other", *text.split()[1:]]).upper() + "!" for text in texts]
    rows = [f"{rng.getrandbits(64):016x}" for _ in texts]
    found = split_of(rows, texts, SHARES, 0.9)
    assert found[:20] == found[20:]
    assert clusters(texts, 0.9)[20:] == list(range(20))


@given(st.integers(0, 10**6))
def test_adding_rows_moves_no_sentence(seed: int) -> None:
    data = DATA | {"evaluation_sets": {}}
    few, many = _raw(seed), _raw(seed + 1)
    before, after = make_sets(few, data), make_sets(pd.concat([many, few], ignore_index=True), data)
    for name in ("train", "validation", "test"):
        assert set(before[name]["row_id"]) <= set(after[name]["row_id"])


@given(st.integers(0, 10**6))
def test_the_order_of_rows_and_copies_do_not_matter(seed: int) -> None:
    raw = _raw(3)
    mixed = pd.concat([raw, raw.head(9)]).sample(frac=1.0, random_state=seed % 2**32)
    one, other = make_sets(raw, DATA), make_sets(mixed, DATA)
    assert list(one) == list(other)
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name])


@given(st.integers(0, 10**6))
def test_sets_share_no_text_nor_near_duplicate(seed: int) -> None:
    sets = make_sets(_raw(seed), DATA)
    names = [name for name in sets if name != "calibration"]
    for one, other in combinations(names, 2):
        assert not set(sets[one]["row_id"]) & set(sets[other]["row_id"])
    seen = pd.concat([sets["train"], sets["transfer"]])["text"].tolist()
    held = pd.concat([sets["validation"], sets["test"], sets["far"]])["text"].tolist()
    assert near_held(seen, held, DATA["near_duplicate_similarity"]) == {}
    assert set(sets["calibration"]["row_id"]) <= set(sets["train"]["row_id"])


def test_sizes_classes_and_labels() -> None:
    sets = make_sets(_raw(0), DATA)
    assert sets["far"]["label"].value_counts().to_dict() == {0: 5, 1: 5}
    assert sets["transfer"]["source"].value_counts().to_dict() == {"away": 40, "spliced": 30}
    assert len(sets["calibration"]) == 20
    assert set(sets["transfer"]["label"]) == set(sets["calibration"]["label"]) == {NO_LABEL}
    assert set(sets["far"]["source"]) == {"away"}
    assert set(sets["train"]["source"]) == {"home"}
    for rows in sets.values():
        assert rows["row_id"].is_monotonic_increasing
        assert list(rows) == ["row_id", "text", "label", "source"]


def test_transfer_repeats_no_sentence_of_a_held_out_text() -> None:
    raw = _raw(0)
    held = make_sets(raw, DATA)["far"]["text"].tolist()
    donor = " ".join(held) + " Bana delu farel gun mior."
    more = pd.concat([raw, pd.DataFrame([{"text": donor, "label": 0, "source": "away", "split": ""}])])
    sets = make_sets(more, DATA | {"transfer": DATA["transfer"] | {"rows": 10**6}})
    parts = {part.strip(". ").lower() for text in sets["far"]["text"] for part in text.split(". ")}
    assert not parts & {text.strip(". ").lower() for text in sets["transfer"]["text"]}


def test_a_splice_is_the_beginning_of_one_training_text_and_the_end_of_another() -> None:
    sets = make_sets(_raw(0), DATA)
    train = [text.split() for text in sets["train"]["text"]]
    spliced = sets["transfer"].query("source == 'spliced'")["text"]
    beginnings = {tuple(text[:cut]) for text in train for cut in range(len(text) + 1)}
    ends = {tuple(text[cut:]) for text in train for cut in range(len(text) + 1)}
    for words in spliced.str.split().map(tuple):
        assert any(words[:cut] in beginnings and words[cut:] in ends for cut in range(1, len(words) + 1))
    assert not set(sets["transfer"]["row_id"]) & set(sets["train"]["row_id"])


def test_without_enough_training_rows_there_are_fewer_splices() -> None:
    wanted = DATA["transfer"] | {"rows": 0, "spliced_rows": 10**5}
    transfer = make_sets(_raw(0), DATA | {"transfer": wanted})["transfer"]
    assert 1000 < len(transfer) < 10**5
    assert transfer["row_id"].is_unique
    [line] = too_few(transfer, wanted)
    assert line.startswith(f"data.transfer.spliced_rows: {len(transfer):,} of the 100,000 asked for")


def test_without_enough_sentences_that_is_said() -> None:
    wanted = DATA["transfer"] | {"rows": 10**5}
    transfer = make_sets(_raw(0), DATA | {"transfer": wanted})["transfer"]
    [line] = too_few(transfer, wanted)
    assert line.startswith(f"data.transfer.rows: {len(transfer) - 30:,} of the 100,000 asked for")
    assert too_few(transfer, wanted | {"rows": len(transfer) - 30}) == []


def test_a_text_with_two_labels_is_left_out() -> None:
    raw = _raw(0)
    both = pd.DataFrame({"text": ["an odd one", "An odd  one"], "label": [0, 1], "source": "home", "split": ""})
    sets = make_sets(pd.concat([raw, both]), DATA)
    assert not any((rows["text"].str.lower() == "an odd one").any() for rows in sets.values())


def test_a_given_split_is_kept() -> None:
    raw = _raw(0)
    raw["split"] = ["test" if i % 5 < 2 else "validation" if i % 5 < 3 else "train" for i in range(len(raw))]
    sets = make_sets(raw, DATA | {"columns": DATA["columns"] | {"split": "split"}})
    home = raw[raw["source"] == "home"]
    for name in ("validation", "test"):
        assert set(sets[name]["text"]) == set(home.loc[home["split"] == name, "text"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"evaluation_sets": {"far": {"sources": ["away"], "rows": 500}}}, "far.rows: 500 needs 250 .* at most 60"),
        ({"calibration_rows": 1000}, "calibration_rows: 1000 asked; train has"),
        ({"task_sources": ["hme"]}, "no row has the source 'hme'; did you mean 'home'"),
        ({"transfer": DATA["transfer"] | {"min_words": 50, "max_words": 60}}, "no sentence of 50 to 60 words"),
        ({"columns": DATA["columns"] | {"split": "part"}}, "column 'part' .* Allowed: train, validation, test"),
    ],
)
def test_sets_that_cannot_be_filled_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_sets(_raw(0), DATA | change)


def test_three_rows_are_refused() -> None:
    with pytest.raises(DataError, match="none of class"):
        make_sets(_raw(0, home=3, away=60), DATA)
