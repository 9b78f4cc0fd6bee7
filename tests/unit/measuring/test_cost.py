"""What a model costs, against torch's own counting."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tasks.measuring import cost
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import classifier_from_config

SHAPES = [(32, 2, 64, 2, 2), (48, 3, 40, 1, 2), (64, 4, 128, 3, 5)]  # hidden, heads, ffn, layers, classes


def bert(hidden: int, heads: int, ffn: int, layers: int, classes: int):
    torch.manual_seed(0)
    config = {"model_type": "bert", "vocab_size": 50, "hidden_size": hidden, "num_attention_heads": heads}
    config |= {"intermediate_size": ffn, "num_hidden_layers": layers, "max_position_embeddings": 64}
    return classifier_from_config({**config, "id2label": {i: str(i) for i in range(classes)}})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 32])
def test_flops_equal_torchs_counter(shape, tokens):
    model = bert(*shape)
    model.set_attn_implementation("eager")
    ids, mask = map(torch.from_numpy, cost.random_batch(50, 1, tokens, seed=0))
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(input_ids=ids, attention_mask=mask)
    config = model.config.to_dict()
    assert adapter_of(config).flops_per_example(config, tokens, shape[-1]) == counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_equal_the_models_own_count(shape):
    model = bert(*shape)
    counted = cost.count_parameters(model)
    assert counted["total"] == model.num_parameters()
    assert counted["total"] - counted["non_embedding"] == (50 + 64 + 2) * shape[0]


def test_shared_weights_count_once_and_a_tied_head_is_an_embedding():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 10, bias=False))
    model[2].weight = model[0].weight
    assert cost.count_parameters(model) == {"total": 60, "non_embedding": 20}


def test_peak_memory_is_the_weights_and_the_largest_pair_of_activations():
    first, second = torch.nn.Linear(100, 1000, bias=False), torch.nn.Linear(1000, 10, bias=False)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    x = torch.zeros(8, 100)
    # ReLU reads 8 x 1000 numbers and writes as many; the input was made before and does not count.
    assert cost.peak_memory_bytes(model, lambda: model(x)) == 4 * (100 * 1000 + 1000 * 10 + 2 * 8 * 1000)


def test_peak_memory_repeats_and_grows_with_the_batch():
    model = bert(*SHAPES[0])

    def peak(rows: int) -> int:
        ids, mask = map(torch.from_numpy, cost.random_batch(50, rows, 16, seed=0))
        return cost.peak_memory_bytes(model, lambda: model(input_ids=ids, attention_mask=mask))

    assert peak(4) == peak(4) < peak(8)


def test_calls_take_turns_after_a_warm_up():
    heard: list[str] = []
    found = cost.time_interleaved({"a": lambda: heard.append("a"), "b": lambda: heard.append("b")}, repeats=12)
    turn = (cost.LEADS + 1) * ["a"] + (cost.LEADS + 1) * ["b"]
    assert heard == cost.WARM_UP * ["a"] + cost.WARM_UP * ["b"] + 12 * turn
    assert {name: len(values) for name, values in found.items()} == {"a": 12, "b": 12}


def test_a_long_call_has_no_lead(monkeypatch):
    monkeypatch.setattr(cost, "QUICK_MS", 0.0)
    heard: list[str] = []
    cost.time_interleaved({"a": lambda: heard.append("a"), "b": lambda: heard.append("b")}, repeats=11)
    assert heard[2 * cost.WARM_UP :] == ["a", "b"] * 11


def test_slow_calls_stop_early_but_not_before_the_least_number():
    found = cost.time_interleaved({"a": lambda: time.sleep(0.002)}, repeats=1000, seconds=0.01)
    assert len(found["a"]) == cost.MIN_REPEATS
    assert (found["a"] >= 2.0).all()


def test_latency_record():
    record = cost.latency_record(np.array([1.0, 2.0, 3.0]), np.array([10.0, 10.0, 10.0]))
    assert record["latency_ms_p50"] == 2.0
    assert record["latency_ms_p95"] == pytest.approx(2.9)
    assert record["teacher_latency_ms_p50"] == 10.0
    assert record["ratio_p50"] == pytest.approx(0.2)


def test_weights_bytes_counts_safetensors_alone(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "tokenizer.json").write_bytes(b"123")
    assert cost.weights_bytes(tmp_path) == 5
