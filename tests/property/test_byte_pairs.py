"""A smaller byte-level BPE vocabulary: the same tokens where they all stay, every text can be written, stock classes agree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tasks.data.bpe import train_tokenizer
from tasks.data.byte_pairs import ALPHABET, choose_tokens, ids_of, merges_of, parts_of, token_bytes
from tasks.data.vocabulary import check_prunable, ids_at_teacher, kept_ids, most_kept, smaller_tokenizer
from tasks.errors import DataError, ParamsError
from tasks.measuring.latency import continued
from tasks.models.checkpoint import (
    causal_lm_from_config,
    classifier_from_config,
    load_causal_lm,
    load_classifier,
    read_config,
    save_causal_lm,
    save_classifier,
)
from tasks.pruning.causal_lm import student_from_plan as causal_student
from tasks.pruning.classification import student_from_plan
from tasks.pruning.cut import write_tokenizer
from tasks.pruning.shapes import Plan
from tests.causal import config_of, sentences
from tests.families import CONFIGS, END, roberta_tokenizer
from tests.property.test_families import everything

WORDS = ["the", "then", "there", "other", "weather", "in", "inner", "dinner", "interest", "resting", "plotting", "naïve"]
SIZE = 310
FEW = settings(max_examples=25, deadline=None)
LETTERS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bpe")
    rng = random.Random(0)
    train_tokenizer([sentences(rng, WORDS, 6) for _ in range(60)], SIZE, folder)
    tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    assert len(ids_of(tokenizer)) == SIZE
    return tokenizer


def encode(tokenizer: dict[str, Any], text: str) -> list[int]:
    found: list[int] = Tokenizer.from_str(json.dumps(tokenizer)).encode(text, add_special_tokens=False).ids
    return found


def counts_of(tokenizer: dict[str, Any], text: str, size: int = SIZE) -> np.ndarray[Any, Any]:
    return np.bincount(np.array(encode(tokenizer, text), dtype=np.int64), minlength=size)


def needed(tokenizer: dict[str, Any], text: str) -> set[str]:
    """Return the tokens that a text is written with, and those that they are merged from, without single bytes."""
    names = {number: token for token, number in ids_of(tokenizer).items()}
    waiting, tokens, parts = [names[i] for i in encode(tokenizer, text)], set(), parts_of(tokenizer)
    while waiting:
        token = waiting.pop()
        if token in parts and token not in tokens:
            tokens.add(token)
            waiting += parts[token]
    return tokens


def test_tokens_that_the_data_never_have_are_not_kept(full: dict[str, Any]) -> None:
    """However large a vocabulary is asked for; with what is kept the text is written as before."""
    counts = counts_of(full, TEXT)
    for size in (300, SIZE):
        keep = kept_ids(full, counts, size, {})
        assert set(ids_of(smaller_tokenizer(full, keep))) - ALPHABET - {END} == needed(full, TEXT)
        assert len(keep) == most_kept(full, counts, {}) < 300
    assert np.array(keep)[encode(smaller_tokenizer(full, keep), TEXT)].tolist() == encode(full, TEXT)


@FEW
@given(seen=LETTERS, text=LETTERS | st.text(max_size=30), size=st.integers(257, SIZE))
def test_texts_of_kept_tokens_are_cut_the_same_and_every_text_can_be_written(
    full: dict[str, Any], seen: str, text: str, size: int
) -> None:
    keep = choose_tokens(full, counts_of(full, seen), size)
    assert len(keep) == min(size, 257 + len(needed(full, seen))) or (len(keep) < size < 257 + len(needed(full, seen)))
    smaller = smaller_tokenizer(full, keep)
    assert sorted(ids_of(smaller).values()) == list(range(len(keep)))
    ours, theirs = encode(smaller, text), encode(full, text)
    assert Tokenizer.from_str(json.dumps(smaller)).decode(ours) == Tokenizer.from_str(json.dumps(full)).decode(theirs)
    at_teacher = ids_at_teacher(smaller, full)
    assert at_teacher.tolist() == keep
    if set(theirs) <= set(keep):
        assert at_teacher[ours].tolist() == theirs
    assert token_bytes(smaller)[ours].sum() == token_bytes(full)[theirs].sum() == len(text.encode())


@FEW
@given(seen=LETTERS, size=st.integers(257, SIZE))
def test_kept_tokens_have_their_parts_and_merges_keep_their_order(full: dict[str, Any], seen: str, size: int) -> None:
    keep = choose_tokens(full, counts_of(full, seen), size)
    smaller = smaller_tokenizer(full, keep)
    kept = set(ids_of(smaller))
    for token, pair in parts_of(full).items():
        assert token not in kept or set(pair) <= kept
    places = [merges_of(full).index(merge) for merge in merges_of(smaller)]
    assert places == sorted(places)
    assert len(merges_of(smaller)) == len(keep) - 257, "one merge a token that is no byte and not special"


def test_frequent_tokens_stay(full: dict[str, Any]) -> None:
    (other,) = encode(full, " weather")
    assert other in choose_tokens(full, counts_of(full, " weather" * 9), 270)
    assert other not in choose_tokens(full, counts_of(full, "resting" * 9), 270)


def test_merges_that_make_one_token_in_several_ways_are_all_kept_and_the_true_parts_stay() -> None:
    """Files made from rank lists write every split of a token whose parts are tokens; only one is ever used."""
    tokenizer = roberta_tokenizer()
    vocab = tokenizer["model"]["vocab"]
    for token in ("he", "the", "hen", "then"):
        vocab[token] = len(vocab)
    tokenizer["model"]["merges"] = ["h e", "t h", "t he", "th e", "he n", "the n", "t hen", "th en"][:7]
    assert parts_of(tokenizer)["the"] == ("t", "he"), "h and e are merged before t and h"
    assert parts_of(tokenizer)["then"] == ("the", "n")
    counts = np.zeros(len(vocab), dtype=np.int64)
    counts[vocab["then"]] = 5
    keep = choose_tokens(tokenizer, counts, len(vocab) - 2)
    smaller = smaller_tokenizer(tokenizer, keep)
    assert {"he", "the", "then"} <= set(ids_of(smaller))
    assert ids_at_teacher(smaller, tokenizer)[encode(smaller, "then")].tolist() == [vocab["then"]]


def test_sizes_that_cannot_be_and_other_tokenizers_are_refused(full: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="allowed: from 257 to 310"):
        choose_tokens(full, counts_of(full, ""), 200)
    with pytest.raises(ParamsError, match="knows WordPiece and byte-level BPE"):
        check_prunable({"model": {"type": "Unigram"}, "pre_tokenizer": None}, 300)
    smaller = smaller_tokenizer(full, choose_tokens(full, counts_of(full, ""), 300))
    with pytest.raises(DataError, match="is none of the teacher's"):
        ids_at_teacher(full, smaller)


def write(tokenizer: dict[str, Any], kind: str, folder: Path) -> None:
    folder.mkdir()
    ids = ids_of(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    added = {str(t["id"]): {"content": t["content"], "special": True} for t in tokenizer["added_tokens"]}
    end = {"eos_token": END, "pad_token": END} if END in ids else {}
    settings = {"tokenizer_class": kind, "model_max_length": 64, "add_prefix_space": False, **end, "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def with_merges(full: dict[str, Any]) -> dict[str, Any]:
    """Return RoBERTa's tokenizer with the tokens of another."""
    tokenizer = roberta_tokenizer()
    vocab = tokenizer["model"]["vocab"]
    for piece in ids_of(full):
        if piece != END and piece not in vocab:
            vocab[piece] = len(vocab)
    tokenizer["model"]["merges"] = full["model"]["merges"]
    return tokenizer


TEXT = "the weather in there is interesting; dinner then"


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast", "RobertaTokenizer"])
def test_the_stock_tokenizer_and_classifier_of_the_smaller_folder_say_the_same(
    full: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    name = {"GPT2Tokenizer": "gpt2", "Qwen2Tokenizer": "qwen2", "RobertaTokenizer": "roberta"}.get(kind, "llama")
    tokenizer = with_merges(full) if name == "roberta" else full
    size = len(ids_of(tokenizer))
    config = {**CONFIGS[name], "vocab_size": size}
    config |= {} if name == "roberta" else {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    parent = tmp_path / "parent"
    write(tokenizer, kind, parent)
    torch.manual_seed(0)
    save_classifier(classifier_from_config(config), parent, parent)
    keep = kept_ids(tokenizer, counts_of(tokenizer, TEXT, size), 300, read_config(parent))
    plan = Plan(**{**everything(parent), "vocabulary": keep})
    student = student_from_plan(parent, plan)
    save_classifier(student, parent, tmp_path / "student")
    write_tokenizer(parent, plan, tmp_path / "student")
    assert student.config.pad_token_id == config["pad_token_id"], "special tokens come first here, so they do not move"
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "student", parent))
    ids, before = (one([TEXT, "then"], padding=True, return_tensors="pt") for one in (ours, theirs))
    assert torch.equal(torch.tensor(keep)[ids["input_ids"]], before["input_ids"])
    assert ids["input_ids"][0].tolist() == Tokenizer.from_file(str(tmp_path / "student/tokenizer.json")).encode(TEXT).ids
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    with torch.inference_mode():
        mine = stock(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits
        logits = load_classifier(parent)(input_ids=before["input_ids"], attention_mask=before["attention_mask"]).logits
    torch.testing.assert_close(mine, logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama_biases", "qwen3"])
def test_a_language_model_with_fewer_tokens_has_its_parents_logits_of_those_that_stay(
    full: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """Of llama_biases the head is a weight of its own. The end of text, here the last id, moves, in the config too."""
    last = {**full, "model": {**full["model"]}}
    order = [*(t for t in ids_of(full) if t != END), END]
    last["model"]["vocab"] = {token: i for i, token in enumerate(order)}
    last["added_tokens"] = [{**full["added_tokens"][0], "id": SIZE - 1}]
    parent = tmp_path / "parent"
    write(last, "PreTrainedTokenizerFast", parent)
    torch.manual_seed(0)
    ends = {"eos_token_id": [SIZE - 1], "bos_token_id": SIZE - 1}
    save_causal_lm(causal_lm_from_config({**config_of(name), "vocab_size": SIZE, **ends}), parent, parent)
    keep = kept_ids(last, counts_of(last, TEXT), 290, read_config(parent))
    plan = Plan(**{**everything(parent), "vocabulary": keep})
    save_causal_lm(causal_student(parent, plan), parent, tmp_path / "student")
    write_tokenizer(parent, plan, tmp_path / "student")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "student").eval()
    assert stock.config.eos_token_id == [len(keep) - 1] != [SIZE - 1]
    ids = AutoTokenizer.from_pretrained(tmp_path / "student")(TEXT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        mine, whole = stock(ids).logits, load_causal_lm(parent)(torch.tensor(keep)[ids]).logits
    torch.testing.assert_close(mine, whole[..., keep])
    cached, plain = (continued(stock, ids.numpy(), 8, use_cache=use_cache) for use_cache in (True, False))
    assert (cached == plain).all()
