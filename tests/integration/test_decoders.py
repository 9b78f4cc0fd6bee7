"""Decoders, and an encoder with their kind of tokenizer, through the stages, to ONNX, and back in a fresh process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tasks.data.byte_pairs import ids_of
from tasks.data.frames import write_sets
from tasks.data.tokens import load_tokens, save_tokens, tokenize
from tasks.errors import ParamsError
from tasks.files import file_sha256, read_json, write_json
from tasks.measuring.classification import measure_cost
from tasks.measuring.subject import Subject, Teacher
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import load_classifier, read_config
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.params.measures import row_settings
from tasks.pruning.classification import student_from_plan
from tasks.pruning.shapes import Plan
from tasks.running.preflight import check_tokenizer
from tasks.stages import distill, export, prune, teacher, teacher_logits
from tests.families import BYTES, END, mpnet_tokenizer, roberta_tokenizer, write_family
from tests.integration.tiny_run import tiny_params, tiny_set, write_tiny_sets

SHAPES = {
    "gpt2": {"hidden": 16, "heads": 2, "ffn": 20, "layers": 2},
    "llama": {"hidden": 24, "heads": 2, "ffn": 20, "layers": 2},
    "roberta": {"hidden": 16, "heads": 2, "ffn": 20, "layers": 2},
    "mpnet": {"hidden": 16, "heads": 2, "ffn": 20, "layers": 2},
}


def write_prepared(sets: Path, tokens: Path, base: Path, params: ClassificationParams) -> None:
    """Write what `prepare` leaves: the sets, and their tokens by the tokenizer of `base`."""
    write_tiny_sets(sets)
    train = pd.read_parquet(sets / "train.parquet")
    write_sets({"calibration": train.head(24).assign(label=-1), "validation": tiny_set(40, 3)}, sets)
    for file in sets.glob("*.parquet"):
        texts = pd.read_parquet(file)["text"].tolist()
        save_tokens(tokenize(texts, base / "tokenizer.json", params.data.max_tokens), tokens / file.stem)


def params_of(name: str, criterion: str, vocabulary: int = BYTES) -> ClassificationParams:
    values: dict[str, Any] = tiny_params(latency_batches=[1, 2], latency_repeats=3).model_dump()
    values["data"]["max_tokens"] = 48
    values["teacher"] |= {"epochs": 1, "learning_rate": 5.0e-3, "batch_rows": 16, "frozen_layers": None}
    values["prune"]["criterion"] = criterion
    values["distill"] |= {"loss": "jensen_shannon", "batch_rows": 16, "checkpoints": 2}
    budget = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 0.5, "learning_rate": 5.0e-3}
    values["rounds"] = {"r1": {"vocabulary": vocabulary, **SHAPES[name], **budget}}
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return check_params(values, "params.yaml")


# A Llama's way through the stages, without ONNX, is a part of test_causal_stages.
@pytest.mark.slow  # quick: test_causal_stages
@pytest.mark.parametrize(("name", "criterion"), [("gpt2", "taylor"), ("llama", "wanda")])
def test_a_decoder_goes_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, criterion: str) -> None:
    monkeypatch.chdir(tmp_path)  # scratches of unfinished training stand below the workspace
    params = params_of(name, criterion)
    base, sets, tokens = write_family(name, tmp_path / "base"), tmp_path / "sets", tmp_path / "tokens"
    write_prepared(sets, tokens, base, params)

    teacher.run(params, base=base, sets=sets, tokens=tokens, out=tmp_path / "teacher")
    parent = tmp_path / "teacher" / "model"
    assert read_config(parent)["pad_token_id"] == BYTES - 1
    assert read_json(parent / "tokenizer_config.json")["pad_token"] == END
    logits, pruned, trained = tmp_path / "logits", tmp_path / "pruned", tmp_path / "trained"
    teacher_logits.run(params, teacher=parent, sets=sets, tokens=tokens, out=logits)
    student_tokens = tmp_path / "student_tokens"
    facts = prune.run(
        params,
        round="r1",
        parent=parent,
        tokens=tokens,
        sets=sets,
        teacher=base,
        out=pruned,
        planned=tmp_path / "search/planned.json",
        student_tokens=student_tokens,
    )
    assert facts["shape_after"] == {"vocabulary": BYTES, **SHAPES[name]}
    assert file_sha256(pruned / "model" / "tokenizer.json") == file_sha256(base / "tokenizer.json")
    plan = Plan.from_json(read_json(pruned / "plan.json")["keep"])
    assert adapter_of(read_config(parent)).head_groups(read_config(parent)) in (1, len(plan.heads[0]))
    again = student_from_plan(parent, plan).state_dict()
    assert all((again[key] == weight).all() for key, weight in load_file(pruned / "model/model.safetensors").items())
    distill.run(
        params,
        round="r1",
        pruned=pruned,
        search=tmp_path / "search",
        tokens=student_tokens,
        sets=sets,
        logits=logits,
        teacher=parent,
        out=trained,
    )
    for model, place in ((parent, "teacher"), (trained / "model", "r1")):
        parity = export.run(params, model=model, sets=sets, out=tmp_path / "exported" / place)
        assert parity["load_back_max_difference"] <= 1e-5
        assert parity["onnx_max_difference"] <= 1e-4
    exported = tmp_path / "exported"
    subject = Subject("r1", load_classifier(trained / "model"), trained / "model", exported / "r1", tokens, sets)
    found = measure_cost(subject, Teacher(parent, exported / "teacher", None), row_settings(params))
    assert found["params_total"] == facts["params_total"]
    assert set(found["latency"]) == {"torch", "onnx", "onnx_int8"}


def prune_base(name: str, folder: Path, vocabulary: int) -> tuple[ClassificationParams, dict[str, Any]]:
    """Write base/, sets/, tokens/, pruned/ and student_tokens/ of a family; return the params and the facts of the pruning."""
    params = params_of(name, "activation", vocabulary)
    base, sets, tokens = write_family(name, folder / "base"), folder / "sets", folder / "tokens"
    write_prepared(sets, tokens, base, params)
    places = {"parent": base, "tokens": tokens, "sets": sets, "teacher": base, "out": folder / "pruned"}
    own, planned = folder / "student_tokens", folder / "search/planned.json"
    return params, prune.run(params, round="r1", planned=planned, student_tokens=own, **places)


def parity_of(params: ClassificationParams, folder: Path) -> dict[str, Any]:
    """Export the pruned student of `prune_base`; return how far each form is from it."""
    return export.run(params, model=folder / "pruned/model", sets=folder / "sets", out=folder / "exported")


@pytest.mark.slow
def test_an_mpnet_is_cut_exported_and_read_by_stock_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params, _ = prune_base("mpnet", tmp_path, len(ids_of(mpnet_tokenizer())) - 8)
    student = tmp_path / "pruned/model"
    heads = read_json(tmp_path / "pruned/plan.json")["keep"]["heads"]
    assert all(kept == heads[0] for kept in heads)
    table, whole = (
        load_file(folder / "model.safetensors")["mpnet.encoder.relative_attention_bias.weight"]
        for folder in (student, tmp_path / "base")
    )
    assert torch.equal(table, whole[:, heads[0]])
    ids = ids_of(read_json(student / "tokenizer.json"))
    assert [ids[token] for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3], "positions are counted from id 1"
    text = "a plain text of words"
    own = Tokenizer.from_file(str(student / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(student)(text)["input_ids"] == own.encode(text).ids
    parity = parity_of(params, tmp_path)
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["golden_max_difference"] <= 1e-4
    assert parity["onnx_max_difference"] <= 1e-4, "distances and positions are computed in the ONNX file too"


@pytest.mark.slow
def test_a_roberta_loses_tokens_and_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = len(ids_of(roberta_tokenizer()))
    params, facts = prune_base("roberta", tmp_path, size - 1)
    assert facts["shape_after"]["vocabulary"] == size - 1
    tokenizer = read_json(tmp_path / "pruned/model/tokenizer.json")
    assert set(ids_of(roberta_tokenizer())) - set(ids_of(tokenizer)) == {"th"}
    assert read_json(tmp_path / "pruned/model/tokenizer_config.json")["tokenizer_class"] == "RobertaTokenizer"
    before, after = load_tokens(tmp_path / "tokens/test"), load_tokens(tmp_path / "student_tokens/test")
    assert len(after.ids) > len(before.ids), "th is two tokens now"
    parity = parity_of(params, tmp_path)
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["golden_max_difference"] <= 1e-4
    assert parity["onnx_max_difference"] <= 1e-4, "positions are counted in the ONNX file too"


def test_tokenizers_that_cannot_be_cut_are_refused_before_anything_runs(tmp_path: Path) -> None:
    before = {"vocabulary": 300}
    write_json(tmp_path / "tokenizer.json", {"model": {"type": "Unigram"}, "added_tokens": []})
    check_tokenizer(tmp_path, before, {"r1": before})
    with pytest.raises(ParamsError, match=r"rounds.r1.vocabulary: .*knows WordPiece and byte-level BPE"):
        check_tokenizer(tmp_path, before, {"r1": {"vocabulary": 290}})
    write_json(tmp_path / "tokenizer.json", roberta_tokenizer())
    with pytest.raises(ParamsError, match="allowed: from 261 to 262"):
        check_tokenizer(tmp_path, before, {"r1": {"vocabulary": 260}})
