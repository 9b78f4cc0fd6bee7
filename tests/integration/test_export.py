"""Exports of a tiny model, and the load-back contract, both kept and broken."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.data.tokens import collate, tokenize
from tasks.errors import StageError
from tasks.exports import classification as export
from tasks.exports.load_back import LoadBack
from tasks.exports.onnx import OnnxClassifier, export_onnx, quantise_int8
from tasks.files import file_sha256, read_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.models.predict import predict_logits
from tests.integration.tiny_run import TEXTS


def test_the_contract_is_kept_and_recorded(tiny_exported):
    folder, facts = tiny_exported
    parity = read_json(folder / "parity.json")
    assert parity == facts
    assert parity["rows"] == export.PARITY_ROWS
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["golden_max_difference"] <= 1e-4
    assert parity["onnx_max_difference"] <= 1e-4
    assert 0 < parity["onnx_int8_max_difference"] < 1.0
    assert 0.5 <= parity["onnx_int8_agreement"] <= 1.0


def test_the_golden_answers_are_those_of_the_model(tiny_exported, tiny_model):
    golden = read_json(tiny_exported[0] / "golden.json")
    assert len(golden["rows"]) == export.GOLDEN_ROWS
    model = load_classifier(tiny_model)
    tokens = tokenize([row["text"] for row in golden["rows"]], tiny_model / "tokenizer.json", 32)
    found = predict_logits(model, tokens, 1, pick("cpu", "fp32", 1))
    np.testing.assert_allclose(found, [row["logits"] for row in golden["rows"]], atol=golden["atol"])
    assert [row["label"] for row in golden["rows"]] == [model.config.id2label[int(one)] for one in found.argmax(axis=1)]


def test_onnx_takes_any_batch_and_length_and_skips_padding(tiny_exported, tiny_model):
    folder, _ = tiny_exported
    session, model = OnnxClassifier(folder / "model.onnx", threads=1), load_classifier(tiny_model)
    for rows, length in ((1, 1), (1, 9), (5, 33), (3, 64)):
        ids = np.random.default_rng(rows).integers(5, 60, (rows, length))
        mask = np.ones_like(ids)
        mask[-1, length // 2 + 1 :] = 0
        with torch.inference_mode():
            wanted = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
        np.testing.assert_allclose(session.logits(ids, mask), wanted, atol=1e-4)


def test_predict_keeps_the_order_of_rows(tiny_exported, tiny_model):
    folder, _ = tiny_exported
    tokens = tokenize(TEXTS, tiny_model / "tokenizer.json", 32)
    wanted = predict_logits(load_classifier(tiny_model), tokens, 7, pick("cpu", "fp32", 1))
    np.testing.assert_allclose(OnnxClassifier(folder / "model.onnx", 1).predict(tokens, 7), wanted, atol=1e-4)


def test_two_exports_are_byte_identical_and_name_no_path(tiny_exported, tiny_model, tmp_path):
    folder, _ = tiny_exported
    model = load_classifier(tiny_model)
    export_onnx(model, tmp_path / "model.onnx")
    quantise_int8(tmp_path / "model.onnx", tmp_path / "model.int8.onnx")
    for name in ("model.onnx", "model.int8.onnx"):
        assert file_sha256(tmp_path / name) == file_sha256(folder / name)
    proto = onnx.load(folder / "model.onnx")
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert b".py" not in (folder / "model.onnx").read_bytes()
    assert model.config._attn_implementation == "sdpa", "the export leaves the model as it was"


def test_a_file_that_differs_from_the_model_is_measured(tiny_model, tmp_path):
    other = tmp_path / "model"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 0.25
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    tokens = tokenize(TEXTS[:4], tiny_model / "tokenizer.json", 32)
    ids, mask = map(torch.from_numpy, collate(tokens, np.arange(4)))
    with torch.inference_mode():
        mine = load_classifier(tiny_model)(input_ids=ids, attention_mask=mask).logits.numpy()
    with LoadBack(other, TEXTS[:4], 32, threads=1, alone=TEXTS[:1]) as fresh:
        theirs, alone = fresh.logits()
    np.testing.assert_allclose(alone, theirs[:1], atol=1e-5)
    parity = export.compare(mine, load_back=theirs, onnx=mine, onnx_int8=mine)
    assert parity["load_back_max_difference"] == pytest.approx(0.25, abs=1e-3)
    assert parity["onnx_max_difference"] == 0.0


@pytest.mark.slow
def test_a_folder_without_tokenizer_or_weights_is_an_error_with_the_reason(tiny_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    with LoadBack(broken, TEXTS[:1], 32, threads=1) as fresh, pytest.raises(StageError, match="fresh process") as error:
        fresh.logits()
    assert "model.safetensors" in str(error.value)


def test_a_nan_is_a_broken_promise_not_a_crash():
    good, bad = np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
    assert export.compare(good, load_back=good, onnx=bad, onnx_int8=good)["onnx_max_difference"] > 1e300
