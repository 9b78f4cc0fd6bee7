"""Pairs of texts: their names, the groups that no split divides, their tokens with types, and what is drawn group by group."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.clean import clean_text, row_id
from tasks.data.frames import cleaned_rows
from tasks.data.near import near_held, similarity
from tasks.data.pairs import SEPARATOR, join, joined_texts, parts, sets_mark, texts_of, tied
from tasks.data.respelled import respelled, spellings_of
from tasks.data.splits import make_sets
from tasks.data.tokens import collate, collate_types, joined, load_tokens, rows_of, save_tokens, tokenize
from tasks.data.typos import typo_set
from tasks.errors import DataError
from tasks.gates.paired import count_pairs, paired_bootstrap
from tasks.measuring.quality import Draws, interval_of_mean, measure_slices
from tests.conftest import tiny_tokenizer
from tests.families import bytes_tokenizer, roberta_tokenizer
from tests.paired import FILLERS, pair_rows

DATA: dict[str, Any] = {
    "columns": {"text": "a", "text_pair": "b", "label": "label", "source": "source", "split": None, "group": None},
    "labels": {0: "against", 1: "for"},
    "task_sources": ["home"],
    "splits": {"validation": 0.2, "test": 0.2},
    "near_duplicate_similarity": 0.9,
    "transfer": {"sources": ["away"], "min_words": 3, "max_words": 40, "rows": 6, "spliced_rows": 31},
    "evaluation_sets": {"far": {"sources": ["away"], "rows": 8}},
    "calibration_rows": 20,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORDS = st.lists(st.sampled_from([*FILLERS, "never", "a", "I"]), min_size=1, max_size=30).map(" ".join)


def raw(seed: int = 0, firsts: int = 90, group: str = "") -> pd.DataFrame:
    """Return made-up pairs as `read_rows` returns them."""
    frame = pd.DataFrame(pair_rows(firsts, seed)).rename(columns={"a": "text", "b": "text_pair"})
    return frame.assign(split="", group=frame[group] if group else "").drop(columns="album")


@given(TEXT, TEXT)
def test_no_cleaned_text_holds_the_separator_so_no_two_pairs_have_one_name(first: str, second: str) -> None:
    first, second = clean_text(first), clean_text(second)
    assert SEPARATOR not in first + second
    assert parts(join(first, second)) == (first, second)
    shifted = f"{first} {second}".split(" ")
    for cut in range(len(shifted)):
        other = (" ".join(shifted[:cut]), " ".join(shifted[cut:]))
        if (other[0].lower(), other[1].lower()) != (first.lower(), second.lower()):
            assert row_id(join(*other)) != row_id(join(first, second))
    assert row_id(join(first, second)) != row_id(f"{first} {second}")


def test_a_pair_is_named_by_both_texts_as_they_are_cleaned() -> None:
    rows = pd.DataFrame(
        {"text": ["A  <b>film</b>", "a film", "other"], "text_pair": ["x", " X ", "a film"], "group": ["", "", "g"]}
    )
    named = cleaned_rows(rows)
    assert named["row_id"].tolist() == [row_id("a film\x1fx")] * 2 + [row_id("other\x1fa film")]
    assert named["group"].tolist() == [row_id("a film")] * 2 + [row_id("other")]
    back = cleaned_rows(pd.DataFrame({"text": ["x"], "text_pair": ["a film"], "group": [""]}))
    assert back["row_id"][0] != named["row_id"][0], "in the other order it is another row"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), max_size=14))
def test_what_hangs_together_has_one_name(pairs: list[tuple[str, str]]) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    names = tied(first, second)
    place = list(range(len(pairs)))
    for _ in pairs:  # by hand: the smallest row that can be reached
        place = [
            min(place[j] for j in range(len(pairs)) if first[j] == first[i] or second[j] == second[i]) for i in range(len(pairs))
        ]
    assert [names.index(name) for name in names] == place
    assert all(name == min(one for one, other in zip(first, names, strict=True) if other == name) for name in names)


@pytest.mark.parametrize("group", ["", "album"])
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_no_group_is_divided_and_nothing_that_is_measured_is_learnt_from(group: str, seed: int) -> None:
    rows = raw(seed, firsts=50, group=group)
    sets = make_sets(rows, DATA | {"transfer": DATA["transfer"] | {"rows": 0}, "calibration_rows": 5})
    learnt = pd.concat([sets["train"], sets["transfer"]])
    held = pd.concat([sets["validation"], sets["test"], sets["far"]])
    assert not set(learnt["group"]) & set(held["group"])
    assert not set(learnt["text"]) & set(held["text"])
    assert near_held(joined_texts(learnt), joined_texts(held), 0.9) == {}
    labelled = pd.concat([sets[name].assign(set=name) for name in ("train", "validation", "test")])
    assert (labelled.groupby("group")["set"].nunique() == 1).all()
    if group:
        albums = dict(zip(map(clean_text, rows["text"]), rows["group"], strict=True))
        assert (labelled.assign(album=labelled["text"].map(albums)).groupby("album")["set"].nunique() == 1).all()


def test_further_pairs_of_a_first_text_do_not_move_it() -> None:
    few, more = raw(firsts=60), raw(firsts=60)
    more = pd.concat([more, few.assign(text_pair=[f"new {second}" for second in few["text_pair"]])], ignore_index=True)
    data = DATA | {"evaluation_sets": {}}
    before, after = make_sets(few, data), make_sets(more, data)
    for name in ("train", "validation", "test"):
        assert set(before[name]["row_id"]) <= set(after[name]["row_id"])


def test_made_pairs_are_of_training_texts_and_of_three_kinds() -> None:
    sets = make_sets(raw(), DATA)
    train, made = sets["train"], sets["transfer"]
    assert made["source"].value_counts().to_dict() == {"spliced": 31, "away": 6}
    assert made["row_id"].is_unique
    firsts, seconds = set(train["text"]), set(train["text_pair"])
    spliced = made[made["source"] == "spliced"]
    whole = spliced["text"].isin(firsts) & spliced["text_pair"].isin(seconds)
    assert whole.sum() >= 20, "a near and a random partner"
    assert (spliced["text"].isin(firsts) | spliced["text_pair"].isin(seconds)).all(), "of the others one side is cut"
    again = make_sets(raw().sample(frac=1.0, random_state=1), DATA)["transfer"]
    pd.testing.assert_frame_equal(made, again)


def test_a_split_of_the_file_that_divides_a_group_is_refused() -> None:
    rows = raw().query("source == 'home'")
    data = DATA | {
        "columns": DATA["columns"] | {"split": "set"},
        "evaluation_sets": {},
        "transfer": DATA["transfer"] | {"rows": 0},
    }
    data["transfer"] = data["transfer"] | {"sources": []}
    names = [("train", "validation", "test")[number % 3] for number in range(len(rows))]
    with pytest.raises(DataError, match="groups of pairs stand in two splits"):
        make_sets(rows.assign(split=names), data)
    whole = rows.assign(split=[("train", "validation", "test")[int(row_id(text), 16) % 3] for text in rows["text"]])
    sets = make_sets(whole, data | {"calibration_rows": 5})
    assert set(sets["train"]["text"]) == set(whole.loc[whole["split"] == "train", "text"].map(clean_text))


def test_words_are_told_apart_by_the_side_on_which_they_stand() -> None:
    assert similarity(join("a b", "c d"), join("a b", "c d")) == 1.0
    assert similarity(join("a b", "c d"), join("c d", "a b")) == 0.0
    assert similarity(join("a b c", "d"), join("a b c", "e")) == pytest.approx(3 / 5)


def test_slips_of_the_keyboard_stay_on_their_side() -> None:
    frame = cleaned_rows(raw())
    typed = typo_set(frame, 1.0)
    assert (typed["row_id"] == frame["row_id"]).all()
    assert (typed["text"] != frame["text"]).all()
    assert (typed["text_pair"] != frame["text_pair"]).mean() > 0.9
    assert [len(text.split()) for text in typed["text"]] == [len(text.split()) for text in frame["text"]]


def _file(folder: Path, tokenizer: dict[str, Any]) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(tmp_path_factory.mktemp("wordpiece"), tiny_tokenizer())


@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), longest=st.integers(8, 24))
def test_neither_text_is_dropped_whole_and_the_shorter_one_is_spared(
    wordpiece: Path, pairs: list[tuple[str, str]], longest: int
) -> None:
    cut, whole = tokenize(pairs, wordpiece, longest), tokenize(pairs, wordpiece, 10_000)
    assert cut.types is not None
    assert whole.types is not None
    room = longest - 3
    for row in range(len(pairs)):
        of_cut, of_whole = (tokens.types[tokens.offsets[row] : tokens.offsets[row + 1]] for tokens in (cut, whole))
        first, second = (int((of_whole == kind).sum()) - (2, 1)[kind] for kind in (0, 1))
        kept = [int((of_cut == kind).sum()) - (2, 1)[kind] for kind in (0, 1)]
        assert sum(kept) == min(room, first + second)
        assert min(kept) >= min(first, second, room // 2)
        ids = cut.ids[cut.offsets[row] : cut.offsets[row + 1]]
        assert [ids[0], ids[kept[0] + 1], ids[-1]] == [2, 3, 3], "[CLS] A [SEP] B [SEP]"


def test_stock_classes_cut_and_number_pairs_alike(wordpiece: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    rng = random.Random(0)
    pairs = [
        (" ".join(rng.choices(FILLERS, k=rng.randint(1, 30))), " ".join(rng.choices(FILLERS, k=rng.randint(1, 30))))
        for _ in range(40)
    ]
    tokens = tokenize(pairs, tiny_model / "tokenizer.json", 32)
    stock = AutoTokenizer.from_pretrained(tiny_model)
    firsts, seconds = zip(*pairs, strict=True)
    batch = stock(list(firsts), list(seconds), truncation=True, max_length=32, padding=True, return_tensors="np")
    rows = np.arange(len(pairs))
    np.testing.assert_array_equal(collate(tokens, rows)[0], batch["input_ids"])
    np.testing.assert_array_equal(collate_types(tokens, rows), batch["token_type_ids"])


def test_types_go_with_their_tokens(wordpiece: Path, tmp_path: Path) -> None:
    pairs = texts_of(cleaned_rows(raw()))
    tokens = tokenize(pairs, wordpiece, 24)
    save_tokens(tokens, tmp_path / "set")
    read = load_tokens(tmp_path / "set")
    both, some = joined(read, read), rows_of(read, np.array([5, 3, 300]))
    for number, row in enumerate((5, 3, 300)):
        one, other = (collate_types(chosen, np.array([place])) for chosen, place in ((some, number), (both, len(tokens) + row)))
        wanted = tokens.types[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert one is not None
        assert other is not None
        assert one[0].tolist() == other[0].tolist() == wanted.tolist()
    spelled = respelled(tokens, spellings_of(tiny_tokenizer()), 0.9, 40, seed=0)
    assert len(spelled.types) == len(spelled.ids) > len(tokens.ids)
    for row in range(len(tokens)):
        kinds = spelled.types[spelled.offsets[row] : spelled.offsets[row + 1]]
        assert (np.diff(kinds) >= 0).all(), "first the first text, then the second"
        ends = spelled.ids[spelled.offsets[row] : spelled.offsets[row + 1]][np.flatnonzero(np.diff(kinds))]
        assert ends.tolist() == [3], "the border is behind the first [SEP]"
    batch = np.array([0, 7, 19])
    types, (_, mask) = collate_types(tokens, batch), collate(tokens, batch)
    assert types is not None
    assert types.shape == mask.shape
    assert (types[mask == 0] == 0).all()


def test_single_texts_and_tokenizers_that_number_nothing_have_no_types(tmp_path: Path, wordpiece: Path) -> None:
    pairs = [("a film", "a plot")]
    assert tokenize(["a film"], wordpiece, 16).types is None
    tokens = tokenize(pairs, _file(tmp_path, roberta_tokenizer()), 16)
    assert tokens.types is None
    assert collate_types(tokens, np.array([0])) is None
    ids = tokens.ids.tolist()
    assert (ids[0], ids[-1]) == (0, 2)
    assert [2, 2] in [ids[i : i + 2] for i in range(len(ids))], "<s> A </s></s> B </s>"
    save_tokens(tokens, tmp_path / "set")
    assert not (tmp_path / "set.types.npy").exists()


def test_a_mark_between_the_texts_is_found() -> None:
    assert sets_mark(tiny_tokenizer()["post_processor"])
    assert sets_mark(roberta_tokenizer()["post_processor"])
    assert not sets_mark(bytes_tokenizer()["post_processor"])
    assert not sets_mark(None)
    template = {
        "type": "TemplateProcessing",
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    }
    assert not sets_mark(template)
    assert sets_mark({"type": "Sequence", "processors": [{"type": "ByteLevel"}, tiny_tokenizer()["post_processor"]]})


def test_groups_of_one_row_are_rows() -> None:
    rng = np.random.default_rng(0)
    labels, mine, theirs = (rng.integers(0, 2, 400) for _ in range(3))
    alone = count_pairs(labels, mine, theirs)
    grouped = count_pairs(labels, mine, theirs, np.arange(400))
    assert grouped.units == alone.units == 400
    one, other = (paired_bootstrap(pairs, 0.05, 0.95, 4000, 0) for pairs in (alone, grouped))
    assert (one.value, one.p_value) == pytest.approx((other.value, other.p_value), abs=0.02)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.005)


def test_rows_that_go_together_prove_less_than_rows_that_do_not() -> None:
    rng = np.random.default_rng(1)
    once = [rng.integers(0, 2, 150) for _ in range(3)]
    copies = [np.repeat(values, 4) for values in once]
    groups = np.repeat(np.arange(150), 4)
    honest, too_sure = (paired_bootstrap(count_pairs(*copies, of), 0.05, 0.95, 4000, 0) for of in (groups, None))
    truth = paired_bootstrap(count_pairs(*once), 0.05, 0.95, 4000, 0)
    assert honest.high - honest.low == pytest.approx(truth.high - truth.low, rel=0.1)
    assert too_sure.high - too_sure.low < 0.6 * (honest.high - honest.low)
    draws = Draws(500, 0.95, 0)
    wide, narrow = (interval_of_mean(copies[0], Draws(500, 0.95, 0, of)) for of in (tuple(map(str, groups)), None))
    assert wide["value"] == narrow["value"]
    assert wide["high"] - wide["low"] > 1.6 * (narrow["high"] - narrow["low"])
    logits = np.stack([-copies[1], copies[1]], axis=1).astype(np.float32)
    everyone = {"overall": np.ones(600, dtype=bool)}
    rows = measure_slices(copies[0], logits, None, everyone, 5, draws)
    drawn = measure_slices(copies[0], logits, None, everyone, 5, Draws(500, 0.95, 0, tuple(map(str, groups))))
    spans = [each["overall"]["accuracy"]["high"] - each["overall"]["accuracy"]["low"] for each in (rows, drawn)]
    assert spans[1] > 1.6 * spans[0]
