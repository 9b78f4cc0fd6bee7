"""A pruned model equals its parent with the same structures masked: FFN, heads, depth and vocabulary, to rounding.

Hidden width is tested against an independent reference, since a layer norm over fewer channels has other statistics.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.files import read_json
from tasks.models.architectures import bert, num_layers, without_layers
from tasks.models.checkpoint import load_classifier, read_config
from tasks.pruning.classification import student_from_plan
from tasks.pruning.shapes import Plan

HEAD_SIZE = 8


def everything(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keep lists of a plan that drops nothing."""
    shape = bert.FAMILY.shape(config)
    return {
        "vocabulary": list(range(shape["vocabulary"])),
        "hidden": list(range(shape["hidden"])),
        "layers": list(range(shape["layers"])),
        "heads": [list(range(shape["heads"]))] * shape["layers"],
        "ffn": [list(range(shape["ffn"]))] * shape["layers"],
        "pooler": list(range(shape["hidden"])),
    }


def subset(size: int, minimum: int = 1) -> st.SearchStrategy[list[int]]:
    """Ascending, non-empty subsets of range(size)."""
    return st.sets(st.integers(0, size - 1), min_size=minimum).map(sorted)


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


IDS = torch.tensor([[2, 5, 9, 14, 3], [2, 7, 7, 20, 3]])


def test_a_plan_that_keeps_everything_changes_no_bit(tiny_model: Path) -> None:
    plan = Plan(**everything(read_config(tiny_model)))
    student = student_from_plan(tiny_model, plan)
    for name, weight in load_file(tiny_model / "model.safetensors").items():
        assert torch.equal(student.state_dict()[name], weight), name


@given(data=st.data())
def test_ffn_neurons_pruned_equal_masked(tiny_model: Path, data: st.DataObject) -> None:
    keep = everything(read_config(tiny_model))
    size = data.draw(st.integers(1, 48))
    keep["ffn"] = [data.draw(st.permutations(range(48)).map(lambda p: sorted(p[:size]))) for _ in range(3)]
    student = student_from_plan(tiny_model, Plan(**keep))
    masked = load_classifier(tiny_model)
    with torch.no_grad():
        for layer, kept in zip(masked.bert.encoder.layer, keep["ffn"], strict=True):
            gone = [i for i in range(48) if i not in kept]
            layer.output.dense.weight[:, gone] = 0.0
    torch.testing.assert_close(logits(student, IDS), logits(masked, IDS), atol=1e-5, rtol=1e-4)


@given(kept=subset(3))
def test_dropped_layers_equal_skipped_layers(tiny_model: Path, kept: list[int]) -> None:
    keep = everything(read_config(tiny_model))
    keep.update(layers=kept, heads=[keep["heads"][i] for i in kept], ffn=[keep["ffn"][i] for i in kept])
    student = student_from_plan(tiny_model, Plan(**keep))
    parent = load_classifier(tiny_model)
    with without_layers(parent, {0, 1, 2} - set(kept)):
        expected = logits(parent, IDS)
    torch.testing.assert_close(logits(student, IDS), expected, atol=1e-6, rtol=1e-5)
    assert num_layers(parent) == 3, "the parent gets its layers back"


@given(kept=subset(60, minimum=1).map(lambda ids: sorted({0, 1, 2, 3, 4, *ids})))
def test_vocabulary_keeps_the_rows_of_kept_pieces(tiny_model: Path, kept: list[int]) -> None:
    keep = everything(read_config(tiny_model)) | {"vocabulary": kept}
    student = student_from_plan(tiny_model, Plan(**keep))
    parent = load_classifier(tiny_model)
    new_ids = torch.arange(min(len(kept), 12)).reshape(1, -1)
    old_ids = torch.tensor(kept)[new_ids]
    # not bit for bit: the matrix library may sum in another order when memory is aligned otherwise
    torch.testing.assert_close(logits(student, new_ids), logits(parent, old_ids), atol=1e-6, rtol=1e-5)


@given(data=st.data())
def test_hidden_and_heads_equal_an_independent_reference(tiny_model: Path, data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 3))
    keep = everything(read_config(tiny_model))
    channels = st.permutations(range(32)).map(lambda p: sorted(p[: heads * HEAD_SIZE]))
    keep["hidden"], keep["pooler"] = data.draw(channels), data.draw(channels)
    keep["heads"] = [data.draw(st.permutations(range(4)).map(lambda p: sorted(p[:heads]))) for _ in range(3)]
    student = student_from_plan(tiny_model, Plan(**keep))
    expected = reference_forward(load_file(tiny_model / "model.safetensors"), keep, IDS.numpy())
    np.testing.assert_allclose(logits(student, IDS).numpy(), expected, atol=2e-4, rtol=2e-3)


def reference_forward(weights: dict[str, torch.Tensor], keep: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    """Return BERT's logits in float64 numpy with only the kept channels and heads, written without the slicer.

    Activations keep the parent's width; dropped channels are zero and left out of each layer norm's statistics.
    """
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}
    mask = np.zeros(32)
    mask[keep["hidden"]] = 1.0

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean = (x * mask).sum(-1, keepdims=True) / mask.sum()
        variance = (((x - mean) ** 2) * mask).sum(-1, keepdims=True) / mask.sum()
        return ((x - mean) / np.sqrt(variance + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]) * mask

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    e = "bert.embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "token_type_embeddings.weight"][0]
    x = norm((x + w[e + "position_embeddings.weight"][: ids.shape[1]]) * mask, e + "LayerNorm")
    for i, kept_heads in enumerate(keep["heads"]):
        a = f"bert.encoder.layer.{i}.attention."
        q, k, v = (linear(x, f"{a}self.{part}") for part in ("query", "key", "value"))
        context = np.zeros_like(x)
        for head in kept_heads:
            part = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            scores = q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(HEAD_SIZE)
            attention = np.exp(scores - scores.max(-1, keepdims=True))
            context[..., part] = attention / attention.sum(-1, keepdims=True) @ v[..., part]
        x = norm(linear(context, a + "output.dense") * mask + x, a + "output.LayerNorm")
        inner = linear(x, f"bert.encoder.layer.{i}.intermediate.dense")
        inner = inner * 0.5 * (1.0 + np.vectorize(math.erf)(inner / np.sqrt(2.0)))
        x = norm(linear(inner, f"bert.encoder.layer.{i}.output.dense") * mask + x, f"bert.encoder.layer.{i}.output.LayerNorm")
    pooled = np.tanh(linear(x[:, 0], "bert.pooler.dense"))
    kept = np.zeros(32)
    kept[keep["pooler"]] = 1.0
    return linear(pooled * kept, "classifier")


@pytest.mark.parametrize("shape", [(40, 32, 4, 48, 3), (20, 16, 2, 7, 1), (9, 8, 1, 1, 2)])
def test_parameters_equal_the_arithmetic(tiny_model: Path, shape: tuple[int, ...]) -> None:
    config = read_config(tiny_model)
    target = dict(zip(("vocabulary", "hidden", "heads", "ffn", "layers"), shape, strict=True))
    keep = Plan(
        vocabulary=list(range(shape[0])),
        hidden=list(range(shape[1])),
        layers=list(range(shape[4])),
        heads=[list(range(shape[2]))] * shape[4],
        ffn=[list(range(shape[3]))] * shape[4],
        pooler=list(range(shape[1])),
    )
    student = student_from_plan(tiny_model, keep)
    counted = bert.FAMILY.count_parameters(config, target, 2)
    assert counted["total"] == student.num_parameters()
    embeddings = sum(p.numel() for n, p in student.named_parameters() if "_embeddings" in n)
    assert counted["non_embedding"] == student.num_parameters() - embeddings


def test_the_pruned_folder_repeats_itself(tiny_model: Path) -> None:
    keep = everything(read_config(tiny_model)) | {"pooler": list(range(32))}
    plan = Plan.from_json(read_json_roundtrip(keep))
    first, second = (student_from_plan(tiny_model, plan).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def read_json_roundtrip(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))


def test_read_json_is_strict(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        read_json(tmp_path / "a.json")
