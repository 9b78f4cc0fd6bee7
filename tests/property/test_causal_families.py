"""Language models of every decoder family: pruned equals masked, counts are as promised, stock classes load and generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from tasks.measuring.cost import count_parameters as counted_parameters
from tasks.measuring.cost import random_batch
from tasks.measuring.latency import continued
from tasks.models.architectures import adapter_of, without_layers
from tasks.models.causal_lm import count_parameters, flops_per_token
from tasks.models.checkpoint import load_causal_lm, read_config, save_causal_lm
from tasks.pruning.calibration import BlockCalibration
from tasks.pruning.causal_lm import student_from_plan
from tasks.pruning.criteria import CRITERIA, keep_best
from tasks.pruning.cut import make_plan
from tasks.pruning.depth import blocks, protected_ends
from tasks.pruning.shapes import Plan
from tests.causal import DECODERS, write_decoder
from tests.families import FFN, HEADS, LAYERS
from tests.property.test_families import CPU, drawn_heads, everything, ignore_heads, ignore_inputs

FEW = settings(max_examples=5)
every_decoder = pytest.mark.parametrize("name", DECODERS)
IDS = torch.tensor([[12, 5, 9, 14, 3, 8, 200, 257], [12, 7, 7, 20, 0, 0, 1, 2]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("decoders")
    return {name: write_decoder(name, place / name) for name in DECODERS}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def student_of(folder: Path, **changed: Any) -> Any:
    return student_from_plan(folder, Plan(**{**everything(folder), **changed}))


@every_decoder
def test_a_plan_that_keeps_everything_changes_no_bit(folders: dict[str, Path], name: str) -> None:
    student = student_of(folders[name]).state_dict()
    stored = load_file(folders[name] / "model.safetensors")
    assert ("lm_head.weight" in stored) == (name == "llama_biases"), "a tied head is stored once"
    for key, weight in stored.items():
        assert torch.equal(student[key], weight), key


@every_decoder
@FEW
@given(data=st.data())
def test_ffn_and_heads_pruned_equal_masked(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    config = read_config(folders[name])
    adapter = adapter_of(config)
    size = data.draw(st.integers(1, FFN))
    neurons = [sorted(data.draw(st.permutations(range(FFN)))[:size]) for _ in range(LAYERS)]
    heads = [list(range(HEADS))] * LAYERS
    if name != "gpt2":  # whose width is that of its heads together
        first = drawn_heads(data, adapter.head_groups(config))
        heads = [first] * LAYERS if config["hidden_size"] % len(first) == 0 else heads
    masked = load_causal_lm(folders[name])
    sites = adapter.sites(masked)
    for module, mine in zip(sites.ffn, neurons, strict=True):
        ignore_inputs(module, [i for i in range(FFN) if i not in mine])
    for module, mine in zip(sites.attention, heads, strict=True):
        ignore_heads(module, mine, adapter.head_size(config))
    student = student_of(folders[name], ffn=neurons, heads=heads)
    torch.testing.assert_close(logits(student), logits(masked), atol=1e-4, rtol=1e-4)


@every_decoder
def test_dropped_layers_equal_skipped_layers(folders: dict[str, Path], name: str) -> None:
    whole, kept = everything(folders[name]), [0, 2]
    student = student_of(folders[name], layers=kept, heads=[whole["heads"][i] for i in kept], ffn=[whole["ffn"][i] for i in kept])
    parent = load_causal_lm(folders[name])
    with without_layers(parent, {1}):
        torch.testing.assert_close(logits(student), logits(parent), atol=1e-5, rtol=1e-5)


@every_decoder
@pytest.mark.parametrize("criterion", ["activation", "taylor", "wanda"])
def test_a_smaller_model_has_the_promised_parameters_loads_and_generates(
    folders: dict[str, Path], tmp_path: Path, name: str, criterion: str
) -> None:
    config = read_config(folders[name])
    adapter = adapter_of(config)
    before = adapter.shape(config)
    target = {**before, "heads": 2, "ffn": 7, "layers": 2, "hidden": before["hidden"] // 2}
    assert adapter.refusal(config, target) is None
    calibration = np.random.default_rng(0).integers(0, 258, size=(10, 12), dtype=np.int32)
    scores = CRITERIA[criterion](BlockCalibration(load_causal_lm(folders[name]), calibration, CPU, 0))
    assert keep_best(scores.hidden_D, target["hidden"])
    pieces = list(range(target["vocabulary"]))
    student = student_from_plan(folders[name], make_plan(scores, [0, 2], target, pieces, adapter.head_groups(config)))
    assert count_parameters(config, target) == counted_parameters(student)
    save_causal_lm(student, folders[name], tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(stock), logits(student))
    assert adapter.shape(read_config(tmp_path)) == target
    prompts = IDS.numpy()
    cached, plain = (continued(stock, prompts, 10, use_cache=use_cache) for use_cache in (True, False))
    assert cached.shape == (2, 10)
    assert (cached == plain).all()


@every_decoder
def test_flops_a_token_equal_torchs_counter(folders: dict[str, Path], name: str) -> None:
    model = load_causal_lm(folders[name])
    model.set_attn_implementation("eager")
    ids, _ = map(torch.from_numpy, random_batch(50, 1, 16, seed=0))
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(input_ids=ids)
    assert flops_per_token(model.config.to_dict(), 16) == counter.get_total_flops() // 16


@pytest.mark.parametrize(("layers", "kept", "tried"), [(30, 24, range(2, 23)), (4, 3, (1, 2)), (3, 2, (1,)), (2, 1, (1,))])
def test_the_first_and_last_layers_are_protected(layers: int, kept: int, tried: Any) -> None:
    dropped = layers - kept
    assert blocks(layers, kept, *protected_ends(kept)) == [set(range(first, first + dropped)) for first in tried]
