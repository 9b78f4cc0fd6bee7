"""Block Influence: how far a block of layers turns what passes it, from one pass, for every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.data.tokens import TokenSet
from tasks.models.checkpoint import load_causal_lm, load_classifier
from tasks.models.devices import Device
from tasks.pruning.calibration import BlockCalibration, Calibration
from tasks.pruning.cut import choose_layers
from tasks.pruning.depth import blocks, influence
from tests.causal import write_decoder

CPU = Device(torch.device("cpu"), "fp32", 1)
LENGTHS = (3, 7, 5, 9, 4)


def rows() -> TokenSet:
    ids = np.random.default_rng(0).integers(5, 60, size=sum(LENGTHS)).astype(np.int32)
    return TokenSet(ids, np.concatenate([[0], np.cumsum(LENGTHS)]))


def test_it_is_zero_for_the_same_direction_and_two_for_the_opposite() -> None:
    states = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(influence(states, 5.0 * states), torch.zeros(2, 3), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(influence(states, -states), torch.full((2, 3), 2.0))


def test_of_a_classifier_it_is_a_mean_over_the_tokens_that_are_there(tiny_model: Path) -> None:
    model = load_classifier(tiny_model)
    found = Calibration(model, rows(), np.zeros(5, dtype=np.int64), CPU, 0).influences([{1}, {0, 1, 2}])
    one, all_three = [], []
    for start, length in zip(np.cumsum((0, *LENGTHS[:-1])), LENGTHS, strict=True):
        ids = torch.from_numpy(rows().ids[start : start + length].astype(np.int64))[None]
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        one.append(1 - torch.cosine_similarity(states[1], states[2], dim=-1))
        all_three.append(1 - torch.cosine_similarity(states[0], states[3], dim=-1))
    expected = [float(torch.cat(part, dim=1).mean()) for part in (one, all_three)]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_layer_that_does_nothing_is_the_one_that_goes(tmp_path: Path, family: str) -> None:
    model = load_causal_lm(write_decoder(family, tmp_path / family))
    layers: Any = model.transformer.h if family == "gpt2" else model.model.layers
    idle = layers[1]
    outputs = (idle.attn.c_proj, idle.mlp.c_proj) if family == "gpt2" else (idle.self_attn.o_proj, idle.mlp.down_proj)
    for module in outputs:
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)
    tokens = np.random.default_rng(0).integers(0, 60, (6, 16)).astype(np.int32)
    statistics = BlockCalibration(model, tokens, CPU, 0)
    kept, influences = choose_layers(len(layers), blocks(len(layers), len(layers) - 1), statistics.influences)
    assert influences["1"] == pytest.approx(0.0, abs=1e-6)
    assert all(value > 1e-3 for name, value in influences.items() if name != "1")
    assert kept == [layer for layer in range(len(layers)) if layer != 1]
