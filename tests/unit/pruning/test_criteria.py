"""Scores: padding does not count, ties are stable, and the activation rule is the one of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.frames import write_sets
from tasks.data.tokens import TokenSet
from tasks.models.architectures import layers_of, without_layers
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device
from tasks.models.predict import predict_logits
from tasks.params.base import Prune
from tasks.pruning.calibration import Calibration
from tasks.pruning.classification import calibration_labels
from tasks.pruning.criteria import CRITERIA, Channels, Scores, keep_best
from tasks.pruning.cut import choose_layers
from tasks.pruning.depth import blocks, harm_nats_per_row
from tasks.pruning.statistics import MeanAbsolute, TokenNorm

CPU = Device(torch.device("cpu"), "fp32", 1)


def test_mean_absolute_equals_the_definition_and_skips_padding() -> None:
    values = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [9.0, 9.0]], [[-4.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    accumulator = MeanAbsolute()
    accumulator.add(values[:1], mask[:1])
    accumulator.add(values[1:], mask[1:])
    # row means of |a|: (2, 1) and (4, 1); L2 over rows
    torch.testing.assert_close(accumulator.root(), torch.tensor([20.0**0.5, 2.0**0.5]))


def test_token_norm_equals_the_definition_and_skips_padding() -> None:
    values = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [9.0, 9.0]], [[-4.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    accumulator = TokenNorm()
    accumulator.add(values[:1], mask[:1])
    accumulator.add(values[1:], mask[1:])
    torch.testing.assert_close(accumulator.root(), torch.tensor([26.0**0.5, 5.0**0.5]))


CHANNELS = Channels(
    ffn_LF=torch.ones(1, 3),
    attention_LA=torch.tensor([[3.0, 4.0, 0.0, 1.0]]),
    hidden_SD=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    pooler_D=torch.tensor([1.0, 2.0]),
)
READERS = Channels(
    ffn_LF=torch.tensor([[1.0, 0.0, 2.0]]),
    attention_LA=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    hidden_SD=torch.tensor([[1.0, 0.0], [10.0, 1.0]]),
    pooler_D=torch.tensor([2.0, 3.0]),
)


class Given:
    """Statistics of a model with two heads, given as they are."""

    num_heads = 2

    def mean_absolute(self) -> Channels:
        return CHANNELS

    token_norms = mean_absolute

    def reader_weights(self) -> Channels:
        return READERS


def test_activation_scores_heads_over_their_channels_and_width_over_layers() -> None:
    scores = CRITERIA["activation"](Given())  # type: ignore[arg-type]
    assert scores.heads_LH.tolist() == [[5.0, 1.0]]
    assert scores.hidden_D.tolist() == [4.0, 6.0]


def test_wanda_sums_weight_times_input_norm_over_the_readers() -> None:
    scores = CRITERIA["wanda"](Given())  # type: ignore[arg-type]
    assert scores.ffn_LF.tolist() == [[1.0, 0.0, 2.0]]
    assert scores.heads_LH.tolist() == [[11.0, 4.0]]
    assert scores.hidden_D.tolist() == [31.0, 4.0]
    assert scores.pooler_D.tolist() == [2.0, 6.0]


@given(scores=st.lists(st.integers(0, 5), min_size=1, max_size=40), data=st.data())
def test_keep_best_keeps_the_promised_count_of_the_largest(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    kept = keep_best(torch.tensor(scores, dtype=torch.float32), count)
    assert kept == sorted(set(kept))
    assert len(kept) == count
    dropped = [s for i, s in enumerate(scores) if i not in kept]
    assert min(scores[i] for i in kept) >= max(dropped, default=0)


@pytest.mark.parametrize("count", [0, 4])
def test_keep_best_refuses_impossible_counts(count: int) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        keep_best(torch.ones(3), count)


def test_keep_best_refuses_scores_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        keep_best(torch.tensor([1.0, float("nan")]), 1)


@given(scores=st.lists(st.integers(0, 9), min_size=12, max_size=12), each=st.integers(1, 4))
def test_keep_best_keeps_the_same_number_of_the_best_of_each_group(scores: list[int], each: int) -> None:
    values = torch.tensor(scores, dtype=torch.float32)
    kept = keep_best(values, 3 * each, groups=3)
    alone = [4 * group + i for group in range(3) for i in keep_best(values[4 * group : 4 * group + 4], each)]
    assert kept == alone


def test_keep_best_refuses_a_count_that_groups_cannot_share() -> None:
    with pytest.raises(ValueError, match="cannot keep 4 of 12 structures in 3 groups"):
        keep_best(torch.ones(12), 4, groups=3)


def test_blocks_are_contiguous_and_keep_the_first_layer() -> None:
    assert blocks(6, 4) == [{1, 2}, {2, 3}, {3, 4}, {4, 5}]
    assert blocks(3, 3) == [set()]


def test_harm_is_zero_without_change_and_positive_with() -> None:
    logits = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    assert harm_nats_per_row(logits, logits) == pytest.approx(0.0, abs=1e-12)
    assert harm_nats_per_row(logits, -logits) > 0.5


def calibration() -> TokenSet:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, size=40)
    ids = rng.integers(5, 60, size=int(lengths.sum())).astype(np.int32)
    return TokenSet(ids, np.concatenate([[0], np.cumsum(lengths)]))


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_do_not_depend_on_batching(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, tokens, labels = load_classifier(tiny_model), calibration(), np.arange(40) % 2
    expected = CRITERIA[name](Calibration(model, tokens, labels, CPU, 0))
    monkeypatch.setattr(Calibration, "batch_rows", 1)
    alone = CRITERIA[name](Calibration(model, tokens, labels, CPU, 0))
    for axis in vars(expected):
        torch.testing.assert_close(getattr(alone, axis), getattr(expected, axis), atol=1e-4, rtol=1e-4)


def test_calibration_rows_have_the_labels_of_the_training_set(tmp_path: Path) -> None:
    train = pd.DataFrame({"row_id": ["a", "b", "c"], "text": ["x", "y", "z"], "label": [1, 0, 1], "source": "s"})
    write_sets({"train": train, "calibration": train.iloc[[2, 1]].assign(label=-1)}, tmp_path)
    assert calibration_labels(tmp_path).tolist() == [1, 0]


def test_params_offer_every_criterion() -> None:
    assert set(get_args(Prune.model_fields["criterion"].annotation)) == set(CRITERIA)


def test_the_dropped_block_is_the_one_that_harms_least(tiny_model: Path) -> None:
    statistics = Calibration(load_classifier(tiny_model), calibration(), np.arange(40) % 2, CPU, 0)
    kept, harms = choose_layers(3, blocks(3, 2), statistics.harms)
    assert set(harms) == {"1", "2"}
    gone = min(harms, key=harms.__getitem__)
    assert kept == [i for i in range(3) if str(i) != gone]
    assert choose_layers(3, blocks(3, 3), statistics.harms) == ([0, 1, 2], {})


def test_harm_is_the_divergence_from_the_whole_model(tiny_model: Path) -> None:
    model, tried = load_classifier(tiny_model), [{1}, {2}, {1, 2}]
    found = Calibration(model, calibration(), np.arange(40) % 2, CPU, 0).harms(tried)
    whole = torch.from_numpy(predict_logits(model, calibration(), 8, CPU))
    for block, harm in zip(tried, found, strict=True):
        with without_layers(model, block):
            logits = torch.from_numpy(predict_logits(model, calibration(), 8, CPU))
        assert harm == pytest.approx(harm_nats_per_row(whole, logits), rel=1e-3)
        assert harm > 1e-6


@pytest.mark.parametrize("name", CRITERIA)
def test_blocks_named_before_are_tried_in_the_pass_of_the_criterion(tiny_model: Path, name: str) -> None:
    def measured(named: list[set[int]], asked: list[set[int]]) -> tuple[Scores, list[float], int]:
        model, ran = load_classifier(tiny_model), list[int]()
        for layer in layers_of(model)[1]:
            layer.forward = lambda *args, own=layer.forward, **more: (ran.append(1), own(*args, **more))[1]
        statistics = Calibration(model, calibration(), np.arange(40) % 2, CPU, 0, named)
        return CRITERIA[name](statistics), statistics.harms(asked), len(ran)

    plain, later, apart = measured([], [{1}, {2}])
    scores, harms, together = measured([{2}, {1}], [{1}, {2}])
    assert harms == later
    assert all(torch.equal(value, getattr(plain, axis)) for axis, value in vars(scores).items())
    # layers that ran: 3 of the whole model, 1 above {1} and none above {2}; and 3 where a criterion looks at the rows
    assert apart == (7 if name in ("activation", "wanda", "taylor") else 4)
    assert together == (4 if name in ("activation", "wanda") else apart)
