"""Head merging: which heads are added to which, and that nothing else of a model changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.errors import ParamsError
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import read_config
from tasks.pruning.criteria import Scores
from tasks.pruning.cut import make_plan
from tasks.pruning.merging import merges
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights
from tests.causal import write_decoder
from tests.families import write_family


@given(scores=st.permutations(range(8)), kept=st.integers(4, 8))
def test_the_least_of_those_that_stay_take_up_the_best_of_those_that_go(scores: list[int], kept: int) -> None:
    pairs = merges(torch.tensor(scores, dtype=torch.float32), kept)
    ranked = sorted(range(8), key=lambda head: -scores[head])
    assert [pair[0] for pair in pairs] == sorted(ranked[2 * kept - 8 : kept])
    assert sorted(pair[1] for pair in pairs) == sorted(ranked[kept:]), "each head that goes is added once"
    for stays, goes in pairs:
        assert ranked.index(stays) + ranked.index(goes) == 2 * kept - 1, "i and 2K - i + 1, counted from 1"


def test_each_group_merges_by_itself() -> None:
    alone = merges(torch.tensor([1.0, 3.0, 2.0]), 2)
    both = merges(torch.tensor([1.0, 3.0, 2.0, 7.0, 5.0, 9.0]), 4, groups=2)
    assert alone == [[2, 0]]
    assert both == [[2, 0], [3, 4]]


def test_less_than_half_cannot_stay() -> None:
    with pytest.raises(ValueError, match="3 of 8 heads stay"):
        merges(torch.arange(8.0), 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("merging")
    return {
        "bert": write_family("bert", root / "bert"),
        "gpt2": write_decoder("gpt2", root / "gpt2"),
        "llama": write_decoder("llama", root / "llama"),
    }


def planned(folder: Path, heads: int, merge: bool) -> Plan:
    """Return a plan that keeps all but heads, and hidden where heads are its channels."""
    config = read_config(folder)
    adapter = adapter_of(config)
    shape = adapter.shape(config)
    generator = torch.Generator().manual_seed(0)
    scores = Scores(
        ffn_LF=torch.rand(shape["layers"], shape["ffn"], generator=generator),
        heads_LH=torch.rand(shape["layers"], shape["heads"], generator=generator),
        hidden_D=torch.rand(shape["hidden"], generator=generator),
        pooler_D=torch.zeros(0),
    )
    target = {**shape, "heads": heads}
    return make_plan(
        scores, list(range(shape["layers"])), target, list(range(shape["vocabulary"])), adapter.head_groups(config), merge
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_queries_keys_and_values_of_heads_change_and_nothing_else(folders: dict[str, Path], family: str) -> None:
    folder = folders[family]
    config = read_config(folder)
    adapter, weights = adapter_of(config), load_file(folder / "model.safetensors")
    groups, total, size = adapter.head_groups(config), adapter.shape(config)["heads"], adapter.head_size(config)
    heads = total - groups
    plain, plan = planned(folder, heads, merge=False), planned(folder, heads, merge=True)
    plain.pooler.extend(range(adapter.shape(config)["hidden"]))
    plan.pooler.extend(range(adapter.shape(config)["hidden"]))
    assert plain.merged == []
    assert all(len(pairs) == groups for pairs in plan.merged)
    assert Plan.from_json(plan.to_json()) == plan
    assert "merged" not in plain.to_json()
    before, after = (slice_weights(weights, adapter.layout(config), one, size) for one in (plain, plan))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    named = {
        "bert": ("query", "key", "value"),
        "gpt2": ("c_attn",),
        "llama": ("q_proj",) if groups > 1 else ("q_proj", "k_proj", "v_proj"),
    }[family]
    assert changed, "nothing was merged"
    assert all(any(part in name for part in named) for name in changed)
    name = {
        "bert": "bert.encoder.layer.0.attention.self.query.weight",
        "gpt2": "transformer.h.0.attn.c_attn.weight",
        "llama": "model.layers.0.self_attn.q_proj.weight",
    }[family]
    whole = weights[name].T[: total * size] if family == "gpt2" else weights[name]
    (stays, goes), *_ = plan.merged[0]
    place = plan.heads[0].index(stays)
    merged = after[name].T if family == "gpt2" else after[name]
    expected = 2 * whole[stays * size : (stays + 1) * size] - whole[goes * size : (goes + 1) * size]
    torch.testing.assert_close(merged[place * size : (place + 1) * size], expected)


def test_a_round_that_keeps_too_few_is_told_what_to_do(folders: dict[str, Path]) -> None:
    with pytest.raises(ParamsError, match=r"prune.merge_heads: 1 of 4 heads stay.*merge_heads: false"):
        planned(folders["bert"], 1, merge=True)
    assert planned(folders["bert"], 4, merge=True).merged == [], "nothing goes"
