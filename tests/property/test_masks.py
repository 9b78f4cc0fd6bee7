"""Masks keep the promised number of the largest, group by group where asked, and shares name their denominators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tasks.models.masks import cubic_sparsity, keep_largest, keep_largest_by_row, keep_n_of_m, linear_sparsity, sparsity_of

SCORES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 9))


@given(scores=SCORES, sparsity=st.floats(0, 1))
def test_the_largest_stay_in_the_promised_number(scores: np.ndarray, sparsity: float) -> None:
    mask = keep_largest(torch.from_numpy(scores), sparsity).numpy()
    assert mask.shape == scores.shape
    assert (~mask).sum() == round(sparsity * scores.size)
    assert scores[mask].min(initial=9) >= scores[~mask].max(initial=0)


@given(scores=SCORES, sparsity=st.floats(0, 1))
def test_every_row_loses_the_same_number_of_its_lowest(scores: np.ndarray, sparsity: float) -> None:
    mask = keep_largest_by_row(torch.from_numpy(scores), sparsity).numpy()
    for row, kept in zip(scores, mask, strict=True):
        assert (~kept).sum() == round(sparsity * len(row))
        assert row[kept].min(initial=9) >= row[~kept].max(initial=0)


@given(data=st.data(), m=st.integers(1, 6))
def test_every_group_keeps_n_of_its_m(data: st.DataObject, m: int) -> None:
    n, groups = data.draw(st.integers(1, m)), data.draw(st.integers(1, 4))
    scores = data.draw(arrays(np.float32, (3, groups * m), elements=st.integers(0, 9)))
    mask = keep_n_of_m(torch.from_numpy(scores), n, m).numpy()
    for values, kept in zip(scores.reshape(-1, m), mask.reshape(-1, m), strict=True):
        assert kept.sum() == n
        assert values[kept].min() >= values[~kept].max(initial=0)


@given(scores=SCORES, small=st.floats(0, 1), large=st.floats(0, 1))
def test_what_a_lower_sparsity_drops_a_higher_one_drops_too(scores: np.ndarray, small: float, large: float) -> None:
    small, large = sorted((small, large))
    values = torch.from_numpy(scores)
    assert not (keep_largest(values, large) & ~keep_largest(values, small)).any()


@given(initial=st.floats(0, 0.5), final=st.floats(0.5, 1), start=st.integers(0, 50), length=st.integers(1, 100))
def test_the_linear_schedule_rises_evenly_from_initial_to_final(initial: float, final: float, start: int, length: int) -> None:
    end = start + length
    values = [linear_sparsity(step, start, end, initial, final) for step in range(end + 5)]
    assert values[: start + 1] == pytest.approx([initial] * (start + 1))
    assert values[end:] == pytest.approx([final] * 5)
    assert np.diff(values[start : end + 1]) == pytest.approx([(final - initial) / length] * length)


@given(initial=st.floats(0, 0.5), final=st.floats(0.5, 1), start=st.integers(0, 50), length=st.integers(1, 100))
def test_the_cubic_schedule_rises_from_initial_to_final_and_slows_down(
    initial: float, final: float, start: int, length: int
) -> None:
    end = start + length
    values = [cubic_sparsity(step, start, end, initial, final) for step in range(end + 5)]
    assert values[: start + 1] == pytest.approx([initial] * (start + 1))
    assert values[end:] == pytest.approx([final] * 5)
    rises = np.diff(values[start : end + 1])
    assert (rises >= -1e-12).all()
    assert (np.diff(rises) <= 1e-12).all()
    if length % 2 == 0:
        assert values[start + length // 2] == pytest.approx(final + (initial - final) / 8)


def test_sparsity_names_both_denominators() -> None:
    masks = {"a": torch.tensor([[True, False], [False, False]]), "b": torch.ones(2, 2, dtype=torch.bool)}
    assert sparsity_of(masks, params_total=12) == {
        "weights_zeroed": 3,
        "weights_masked": 8,
        "params_total": 12,
        "sparsity_of_masked": 0.375,
        "sparsity_of_total": 0.25,
    }


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: keep_largest(torch.ones(2, 2), 1.5), "sparsity 1.5 is not in 0..1"),
        (lambda: keep_largest(torch.tensor([[float("nan")]]), 0.5), "not finite"),
        (lambda: keep_n_of_m(torch.ones(2, 6), 2, 4), "2:4 does not fit rows of 6 weights"),
        (lambda: keep_n_of_m(torch.ones(2, 4), 0, 4), "0:4 does not fit"),
        (lambda: cubic_sparsity(1, 5, 5, 0.0, 0.5), "has no steps"),
        (lambda: sparsity_of({}, 10), "no share"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
