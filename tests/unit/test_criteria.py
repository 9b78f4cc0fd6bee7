"""Scores: padding does not count, ties are stable, and the activation rule is the one of the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.tokens import TokenSet
from tasks.models.architectures import bert
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device
from tasks.prune import choose_layers, score
from tasks.pruning.criteria import CRITERIA, MeanAbsolute, Statistics, keep_best
from tasks.pruning.depth import blocks, harm_nats_per_row

CPU = Device(torch.device("cpu"), "fp32", 1)


def test_mean_absolute_equals_the_definition_and_skips_padding() -> None:
    values = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [9.0, 9.0]], [[-4.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    accumulator = MeanAbsolute()
    accumulator.add(values[:1], mask[:1])
    accumulator.add(values[1:], mask[1:])
    # row means of |a|: (2, 1) and (4, 1); L2 over rows
    torch.testing.assert_close(accumulator.root(), torch.tensor([20.0**0.5, 2.0**0.5]))


def test_heads_are_scored_over_their_channels_and_width_over_layers() -> None:
    statistics = Statistics(
        ffn_LF=torch.ones(1, 3), attention_LD=torch.tensor([[3.0, 4.0, 0.0, 1.0]]),
        hidden_SD=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), pooler_D=torch.tensor([1.0, 2.0]),
    )  # fmt: skip
    scores = CRITERIA["activation"](statistics, 2)
    assert scores.heads_LH.tolist() == [[5.0, 1.0]]
    assert scores.hidden_D.tolist() == [4.0, 6.0]


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


def test_scores_do_not_depend_on_batching(tiny_model: Path) -> None:
    model = load_classifier(tiny_model)
    tokens = calibration()
    expected = score(model, tokens, 4, "activation", CPU)
    with torch.inference_mode(), bert.Recorder(model) as recorder:
        for i in range(len(tokens)):
            ids = torch.from_numpy(np.asarray(tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]], dtype=np.int64))
            recorder.batch(torch.ones(1, len(ids)))
            model(input_ids=ids[None], attention_mask=torch.ones(1, len(ids)))
    alone = CRITERIA["activation"](recorder.statistics(), 4)
    for name in vars(expected):
        torch.testing.assert_close(getattr(alone, name), getattr(expected, name), atol=1e-4, rtol=1e-4)


def test_the_dropped_block_is_the_one_that_harms_least(tiny_model: Path) -> None:
    model = load_classifier(tiny_model)
    kept, harms = choose_layers(model, calibration(), 2, CPU)
    assert set(harms) == {"1", "2"}
    gone = min(harms, key=harms.__getitem__)
    assert kept == [i for i in range(3) if str(i) != gone]
    assert choose_layers(model, calibration(), 3, CPU) == ([0, 1, 2], {})
