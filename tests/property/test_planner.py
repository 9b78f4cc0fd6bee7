"""Budgets: every shape found is valid and within the budget, none is missed, and the best comes first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ParamsError
from tasks.models.architectures import adapter_of
from tasks.models.shapes import AXES
from tasks.params.causal_lm import CausalRound
from tasks.params.rounds import Round
from tasks.pruning.planner import DEAR, lost, shapes_within, sizes_along
from tasks.pruning.planning import Measure, candidates, causal_shape, solves_vocabulary, space_of, target_shape
from tests.families import CONFIGS

MINILM = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
FEW = settings(max_examples=8)
TRAINING = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 1.0, "learning_rate": 1.0e-4}


def budget(**values: Any) -> Round:
    return Round(**TRAINING, **values)


def total(config: dict[str, Any], shape: dict[str, int]) -> int:
    return int(adapter_of(config).count_parameters(config, shape, 2)["total"])


@pytest.mark.parametrize("family", CONFIGS)
@FEW
@given(share=st.floats(0.2, 0.99), kind=st.sampled_from(["params_total", "flops_per_example"]))
def test_shapes_meet_the_budget_and_load(family: str, share: float, kind: str) -> None:
    config = CONFIGS[family]
    adapter = adapter_of(config)
    before = adapter.shape(config)

    def size(shape: dict[str, int]) -> int:
        if kind == "params_total":
            return total(config, shape)
        return int(adapter.flops_per_example(adapter.resized(config, shape), 16, 2))

    limit = int(share * size(before))
    try:
        found = candidates("here", budget(**{kind: limit}), config, Measure(config, 2, 16))
    except ParamsError:  # a coarse space has gaps
        return
    for one in found:
        assert 0.95 * limit <= one.size == size(one.shape) <= limit
        assert adapter.refusal(config, one.shape) is None
        assert one.shape["hidden"] % one.shape["heads"] == 0
        assert all(one.shape[axis] <= before[axis] for axis in AXES)
    assert [one.loss for one in found] == sorted(one.loss for one in found)


@FEW
@given(limit=st.integers(2_000, 30_000))
def test_no_shape_of_the_space_is_missed(limit: int) -> None:
    config = CONFIGS["bert"]
    space = space_of(config, {})
    every = [
        {"vocabulary": v, "hidden": hidden, "heads": heads, "ffn": f, "layers": layers}
        for (hidden, heads), v, f, layers in itertools.product(space.hidden_heads, space.vocabulary, space.ffn, space.layers)
    ]
    expected = [one for one in every if 0.95 * limit <= total(config, one) <= limit and one != space.before]
    found = [one.shape for one in shapes_within(space, lambda shape: total(config, dict(shape)), limit)]
    by_axes = [sorted(tuple(one[axis] for axis in AXES) for one in shapes) for shapes in (found, expected)]
    assert by_axes[0] == by_axes[1]


@given(before=st.integers(1, 40_000))
def test_sizes_along_an_axis_are_few_and_end_with_the_parents(before: int) -> None:
    sizes = sizes_along(before)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == before
    assert len(sizes) <= 50
    assert sizes[0] * 8 >= before
    assert len(sizes) >= min(before, 20) * 0.8


def test_losing_nothing_costs_nothing_and_neurons_go_before_the_width_and_the_width_before_depth_of_heads() -> None:
    before = dict.fromkeys(AXES, 64)
    assert lost(before, before) == 0
    halved = {axis: lost(before, {**before, axis: 32}) for axis in AXES}
    assert sorted(halved, key=halved.__getitem__)[:3] == ["ffn", "vocabulary", "layers"]
    assert set(DEAR) == set(AXES)


def test_the_shipped_second_round_is_about_what_its_size_alone_gives() -> None:
    """The claim beside `DEAR`."""
    shipped = {"vocabulary": 12000, "hidden": 256, "heads": 8, "ffn": 512, "layers": 4}
    found = target_shape("here", budget(params_total=total(MINILM, shipped)), MINILM, Measure(MINILM, 2, 32))
    assert found == {"vocabulary": 11264, "hidden": 256, "heads": 8, "ffn": 576, "layers": 4}


def test_a_ratio_is_of_the_teacher_and_held_axes_are_held() -> None:
    target = budget(ratio=8.0, vocabulary=8000, layers=3)
    shape = target_shape("here", target, MINILM, Measure(MINILM, 2, 32))
    before = adapter_of(MINILM).shape(MINILM)
    assert 8.0 <= total(MINILM, before) / total(MINILM, shape) <= 8.0 / 0.95 + 1e-3
    assert (shape["vocabulary"], shape["layers"]) == (8000, 3)
    parent = adapter_of(MINILM).resized(MINILM, {**before, "layers": 4})
    again = target_shape("here", budget(ratio=8.0), parent, Measure(MINILM, 2, 32))
    assert 8.0 <= total(MINILM, before) / total(MINILM, again) <= 8.0 / 0.95 + 1e-3


def test_bert_base_reaches_the_size_asked_for() -> None:
    base = {**MINILM, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    shape = target_shape("here", budget(params_total=13_500_000), base, Measure(base, 2, 32))
    assert 12_825_000 <= total(base, shape) <= 13_500_000


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"params_total": 1000}, "here.params_total: no shape within 5% below 1,000 (no axis held); from"),
        ({"ratio": 8.0, "heads": 5, "hidden": 100}, "heads = 5); no such shape fits the family"),
    ],
)
def test_a_budget_out_of_reach_is_refused_with_what_can_be_reached(target: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        target_shape("here", budget(**target), MINILM, Measure(MINILM, 2, 32))
    assert said in str(refused.value)


def solved(pieces: int | None, **asked: Any) -> dict[str, int]:
    return target_shape("here", budget(**asked), MINILM, Measure(MINILM, 2, 16, pieces))


def test_a_budget_spends_nothing_on_pieces_that_the_data_never_have() -> None:
    plain, few = (solved(pieces, ratio=4) for pieces in (None, 250))
    assert (plain["vocabulary"] > 250, few["vocabulary"]) == (True, 250)
    for shape in (plain, few):
        assert 0.95 < 4 * total(MINILM, shape) / total(MINILM, adapter_of(MINILM).shape(MINILM)) <= 1.0
    assert few["hidden"] * few["ffn"] * few["layers"] > plain["hidden"] * plain["ffn"] * plain["layers"], "it goes to width"
    assert solved(plain["vocabulary"], ratio=4) == plain
    assert solved(30522, ratio=4) == plain, "what is kept anyway changes nothing"


def test_where_all_but_those_pieces_fits_the_budget_all_of_it_stays() -> None:
    assert solved(250, ratio=1.2) == {**adapter_of(MINILM).shape(MINILM), "vocabulary": 250}
    assert solved(250, ratio=1.2, layers=5) == {**adapter_of(MINILM).shape(MINILM), "vocabulary": 250, "layers": 5}


def test_a_vocabulary_that_is_held_is_cut_to_what_occurs_unless_it_is_the_parents() -> None:
    assert solved(250, ratio=4, vocabulary=8000)["vocabulary"] == 250
    assert solved(9000, ratio=4, vocabulary=8000) == solved(None, ratio=4, vocabulary=8000)
    assert solved(250, ratio=1.2, vocabulary=30522) == solved(None, ratio=1.2, vocabulary=30522)


def test_a_language_model_spends_nothing_on_them_either() -> None:
    gpt2 = {**CONFIGS["gpt2"], "vocab_size": 50257, "n_embd": 192, "n_head": 6, "n_layer": 4, "n_inner": 768}
    target = CausalRound(parent="teacher", ratio=2, train_tokens=1000, learning_rate=1.0e-3)
    plain, few = (causal_shape("here", target, gpt2, gpt2, 16, pieces) for pieces in (None, 3000))
    assert plain["vocabulary"] > 3000
    assert few == {**adapter_of(gpt2).shape(gpt2), "vocabulary": 3000}, "with a third of its weights it is within the budget"
    assert solves_vocabulary(target, gpt2)
    assert not solves_vocabulary(target.model_copy(update={"vocabulary": 50257}), gpt2)
