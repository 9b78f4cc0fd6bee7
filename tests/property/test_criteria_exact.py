"""Criteria on models made for the purpose: what cannot matter goes first, and scores scale as their formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.data.tokens import TokenSet
from tasks.models.architectures import bert
from tasks.models.checkpoint import load_classifier, read_config
from tasks.models.devices import Device
from tasks.pruning.calibration import Calibration
from tasks.pruning.criteria import CRITERIA, Scores, keep_best
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights
from tasks.pruning.statistics import weight_sums

CPU = Device(torch.device("cpu"), "fp32", 1)
INFORMED = [name for name in CRITERIA if name != "random"]
HEADS, HEAD_SIZE, FFN = 4, 8, 48
every_criterion = pytest.mark.parametrize("name", CRITERIA)


def rows(count: int = 6) -> TokenSet:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, size=count)
    ids = rng.integers(5, 60, size=int(lengths.sum())).astype(np.int32)
    return TokenSet(ids, np.concatenate([[0], np.cumsum(lengths)]))


def scores_of(model: Any, name: str, seed: int = 0) -> Scores:
    tokens = rows()
    return CRITERIA[name](Calibration(model, tokens, np.arange(len(tokens)) % 2, CPU, seed))


def channels(head: int) -> slice:
    return slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)


@every_criterion
def test_scores_are_finite_one_a_structure_and_repeat_bit_for_bit(tiny_model: Path, name: str) -> None:
    model = load_classifier(tiny_model)
    first, second = scores_of(model, name), scores_of(load_classifier(tiny_model), name)
    shapes = {axis: tuple(values.shape) for axis, values in vars(first).items()}
    assert shapes == {"ffn_LF": (3, FFN), "heads_LH": (3, HEADS), "hidden_D": (32,), "pooler_D": (32,)}
    for axis, values in vars(first).items():
        assert torch.isfinite(values).all()
        assert values.min() >= 0
        assert len(values.unique()) > 1, f"{axis}: all structures are equal"
        assert torch.equal(values, getattr(second, axis))


def test_random_scores_follow_the_seed_alone(tiny_model: Path) -> None:
    model = load_classifier(tiny_model)
    first, other = scores_of(model, "random", 1), scores_of(model, "random", 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    assert torch.equal(first.ffn_LF, scores_of(model, "random", 1).ffn_LF)
    assert not torch.equal(first.ffn_LF, other.ffn_LF)


@pytest.mark.parametrize("name", INFORMED)
@given(data=st.data())
def test_dead_neurons_and_heads_go_first(tiny_model: Path, name: str, data: st.DataObject) -> None:
    dead_neurons = data.draw(st.sets(st.integers(0, FFN - 1), min_size=1, max_size=FFN - 1))
    dead_heads = data.draw(st.sets(st.integers(0, HEADS - 1), min_size=1, max_size=HEADS - 1))
    model = load_classifier(tiny_model)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            gone = sorted(dead_neurons)
            layer.intermediate.dense.weight[gone] = 0.0
            layer.intermediate.dense.bias[gone] = 0.0
            layer.output.dense.weight[:, gone] = 0.0
            for head in dead_heads:
                for part in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                    part.weight[channels(head)] = 0.0
                    part.bias[channels(head)] = 0.0
                layer.attention.output.dense.weight[:, channels(head)] = 0.0
    scores = scores_of(model, name)
    for layer_scores in scores.ffn_LF:
        assert set(keep_best(layer_scores, FFN - len(dead_neurons))) == set(range(FFN)) - dead_neurons
    for layer_scores in scores.heads_LH:
        assert set(keep_best(layer_scores, HEADS - len(dead_heads))) == set(range(HEADS)) - dead_heads


@pytest.mark.parametrize("name", ["magnitude_l1", "magnitude_l2"])
@given(factor=st.floats(0.1, 10.0))
def test_magnitudes_scale_with_the_weights(tiny_model: Path, name: str, factor: float) -> None:
    model = load_classifier(tiny_model)
    before = scores_of(model, name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    for axis, values in vars(scores_of(model, name)).items():
        torch.testing.assert_close(values, factor * getattr(before, axis), atol=0.0, rtol=1e-4)


@given(factor=st.floats(0.2, 5.0), head=st.integers(0, HEADS - 1), layer=st.integers(0, 2))
def test_moving_scale_from_values_to_output_moves_activation_alone(
    tiny_model: Path, factor: float, head: int, layer: int
) -> None:
    """The model's function stays the same, so what a head is worth to it should; activation's scores miss that."""
    model = load_classifier(tiny_model)
    before = {name: scores_of(model, name).heads_LH[layer] for name in ("activation", "taylor", "wanda")}
    attention = model.bert.encoder.layer[layer].attention
    with torch.no_grad():
        attention.self.value.weight[channels(head)] *= factor
        attention.self.value.bias[channels(head)] *= factor
        attention.output.dense.weight[:, channels(head)] /= factor
    after = {name: scores_of(model, name).heads_LH[layer] for name in before}
    torch.testing.assert_close(after["taylor"], before["taylor"], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(after["wanda"], before["wanda"], atol=1e-4, rtol=1e-3)
    before["activation"][head] *= factor
    torch.testing.assert_close(after["activation"], before["activation"], atol=1e-4, rtol=1e-3)


def test_taylor_equals_the_gradient_of_explicit_masks(tiny_model: Path) -> None:
    """Row by row and without padding: every structure is multiplied by a mask of ones, whose gradient is read."""
    model, tokens = load_classifier(tiny_model), rows()
    masks = {
        "ffn_LF": torch.ones(3, FFN, requires_grad=True),
        "heads_LH": torch.ones(3, HEADS, requires_grad=True),
        "hidden_D": torch.ones(32, requires_grad=True),
        "pooler_D": torch.ones(32, requires_grad=True),
    }
    norms = [model.bert.embeddings.LayerNorm]
    for i, layer in enumerate(model.bert.encoder.layer):
        norms += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
        layer.output.dense.register_forward_pre_hook(lambda _m, x, i=i: (x[0] * masks["ffn_LF"][i],))
        layer.attention.output.dense.register_forward_pre_hook(
            lambda _m, x, i=i: (x[0] * masks["heads_LH"][i].repeat_interleave(HEAD_SIZE),)
        )
    for norm in norms:
        norm.register_forward_hook(lambda _m, _x, y: y * masks["hidden_D"])
    model.bert.pooler.register_forward_hook(lambda _m, _x, y: y * masks["pooler_D"])
    expected = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for row in range(len(tokens)):
        ids = torch.from_numpy(np.asarray(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]], dtype=np.int64))
        logits = model(input_ids=ids[None], attention_mask=torch.ones(1, len(ids))).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row % 2]))
        for name, gradient in zip(masks, torch.autograd.grad(loss, list(masks.values())), strict=True):
            expected[name] += gradient.abs() / len(tokens)
    for axis, values in vars(scores_of(load_classifier(tiny_model), "taylor")).items():
        torch.testing.assert_close(values, expected[axis], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("power", [1, 2])
def test_the_weights_of_a_structure_are_those_that_pruning_removes(tiny_model: Path, power: int) -> None:
    config, weights = read_config(tiny_model), load_file(tiny_model / "model.safetensors")
    sums = weight_sums(weights, bert.FAMILY.layout(config), HEADS, power)
    whole = {
        "vocabulary": list(range(bert.FAMILY.shape(config)["vocabulary"])),
        "hidden": list(range(32)),
        "layers": [0, 1, 2],
        "heads": [list(range(HEADS))] * 3,
        "ffn": [list(range(FFN))] * 3,
        "pooler": list(range(32)),
    }

    def lost(**changed: Any) -> float:
        student = slice_weights(weights, bert.FAMILY.layout(config), Plan(**{**whole, **changed}), HEAD_SIZE)
        return float(
            sum((w.double().abs() ** power).sum() for w in weights.values())
            - sum((w.double().abs() ** power).sum() for w in student.values())
        )

    all_but = [i for i in range(FFN) if i != 7]
    assert lost(ffn=[whole["ffn"][0], all_but, whole["ffn"][0]]) == pytest.approx(float(sums.ffn_LF[1, 7]), rel=1e-5)
    assert lost(heads=[[0, 1, 3], *whole["heads"][1:]]) == pytest.approx(float(sums.heads_LH[0, 2]), rel=1e-5)
    all_but = [i for i in range(32) if i != 5]
    assert lost(hidden=all_but) == pytest.approx(float(sums.hidden_D[5]), rel=1e-5)
    assert lost(pooler=all_but) == pytest.approx(float(sums.pooler_D[5]), rel=1e-5)
