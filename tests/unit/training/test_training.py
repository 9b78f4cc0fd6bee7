"""The training loop: schedule, budget, and the same weights after a kill as without one."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.tokens import TokenSet, collate, joined, shuffled_buckets
from tasks.models.devices import Device
from tasks.training.average import Average
from tasks.training.classification import plan_batches, spread_rows
from tasks.training.loop import Course, Schedule, make_optimiser, train
from tasks.training.scratch import Scratch

CPU = Device(torch.device("cpu"), "fp32", 1)
SCHEDULE = Schedule(learning_rate=0.05, warmup_share=0.2, weight_decay=0.01, max_gradient_norm=1.0, checkpoints=3, seed=0)


class KilledError(Exception):
    """Stands for SIGKILL: leaves the loop at once."""


def small_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def fit(
    folder: Path,
    kill_after: int | None = None,
    *,
    saves: bool = True,
    schedule: Schedule = SCHEDULE,
    seen: dict[int, dict[str, torch.Tensor]] | None = None,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return weights and the lines of steps.jsonl of 30 steps, killed after some step if asked.

    `seen` takes a copy of the weights of each checkpoint.
    """
    model, scratch = small_model(), Scratch("distill@r1", "key", folder)
    scratch.due = lambda: saves  # type: ignore[method-assign]
    x = torch.linspace(-1, 1, 40).reshape(10, 4)
    batches = [np.array([i % 10, (3 * i) % 10]) for i in range(30)]

    def loss(model: Any, rows: Any) -> torch.Tensor:
        return (model(x[torch.from_numpy(rows)]) ** 2).mean()

    def on_step(step: int, _loss: float) -> None:
        if step == kill_after:
            raise KilledError

    def on_checkpoint(model: Any, step: int) -> dict[str, Any]:
        if seen is not None:
            seen[step] = {name: value.clone() for name, value in model.state_dict().items()}
        return {"checkpoint": step, "norm": float(model[0].weight.detach().norm())}

    train(model, Course(batches, loss, schedule), CPU, scratch, on_checkpoint, on_step)
    return model.state_dict(), scratch.steps.read_text().splitlines()


@pytest.mark.parametrize("kill_after", [1, 2, 11, 29])
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, kill_after: int, average: float | None) -> None:
    schedule = dataclasses.replace(SCHEDULE, average=average)
    expected, lines = fit(tmp_path / "undisturbed", schedule=schedule)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", kill_after, schedule=schedule)
    weights, resumed_lines = fit(tmp_path / "killed", schedule=schedule)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert resumed_lines == lines


def test_checkpoints_hold_the_average_and_the_training_goes_on_as_without_it(tmp_path: Path) -> None:
    plain: dict[int, dict[str, torch.Tensor]] = {}
    averaged: dict[int, dict[str, torch.Tensor]] = {}
    every_step = dataclasses.replace(SCHEDULE, checkpoints=30)
    expected, _ = fit(tmp_path / "plain", schedule=every_step, seen=plain)
    weights, _ = fit(tmp_path / "averaged", schedule=dataclasses.replace(every_step, average=0.8), seen=averaged)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    for name, start in small_model().state_dict().items():
        by_hand = start.double()
        for step in range(1, 31):
            decay = min(0.8, step / (step + 9))
            by_hand = decay * by_hand + (1 - decay) * plain[step][name].double()
            torch.testing.assert_close(averaged[step][name].double(), by_hand, atol=1e-5, rtol=1e-5)


@given(decay=st.floats(0.01, 0.999), steps=st.integers(1, 30))
def test_the_average_of_weights_that_stand_still_is_the_weights(decay: float, steps: int) -> None:
    model = small_model()
    average = Average(model, decay)
    for step in range(1, steps + 1):
        average.update(model, step)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with average.in_place(model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_weights_are_not_averaged_and_a_failure_gives_the_own_weights_back() -> None:
    model = small_model()
    model[0].requires_grad_(False)
    average = Average(model, 0.5)
    assert set(average.state()) == {"3.weight", "3.bias"}
    with torch.no_grad():
        model[3].bias.add_(1.0)
    own = model[3].bias.clone()

    def fail() -> None:
        with average.in_place(model):
            assert not torch.equal(model[3].bias, own)
            raise KilledError

    with pytest.raises(KilledError):
        fail()
    assert torch.equal(model[3].bias, own)


def test_a_run_killed_before_its_first_save_leaves_no_lines_behind(tmp_path: Path) -> None:
    expected, lines = fit(tmp_path / "undisturbed")
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", 17, saves=False)
    assert (tmp_path / "killed/distill@r1/steps.jsonl").read_text() != ""
    weights, again = fit(tmp_path / "killed")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert again == lines


def test_a_scratch_of_other_inputs_is_thrown_away(tmp_path: Path) -> None:
    first = Scratch("teacher", "one", tmp_path)
    first.save({"step": 3})
    assert Scratch("teacher", "one", tmp_path).load() == {"step": 3}
    assert Scratch("teacher", "two", tmp_path).load() is None


def test_the_rate_warms_up_and_decays_to_nearly_zero() -> None:
    rates = [SCHEDULE.rate(step, 50) for step in range(50)]
    peak = int(np.argmax(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= SCHEDULE.learning_rate
    assert 0 < rates[-1] < 0.05 * SCHEDULE.learning_rate


@given(num_steps=st.integers(1, 200), checkpoints=st.integers(1, 10))
def test_the_last_step_is_always_a_checkpoint(num_steps: int, checkpoints: int) -> None:
    schedule = Schedule(0.1, 0.1, 0.0, 1.0, checkpoints, 0)
    steps = schedule.checkpoint_steps(num_steps)
    assert num_steps in steps
    assert len(steps) == min(checkpoints, num_steps)
    assert min(steps) >= 1


@given(num_steps=st.integers(1, 200), checkpoints=st.integers(1, 10), share=st.floats(0, 1))
def test_checkpoints_from_a_share_on_leave_out_the_earlier_ones(num_steps: int, checkpoints: int, share: float) -> None:
    every = Schedule(0.1, 0.1, 0.0, 1.0, checkpoints, 0)
    late = dataclasses.replace(every, checkpoints_from=share).checkpoint_steps(num_steps)
    assert late <= every.checkpoint_steps(num_steps)
    assert num_steps in late
    assert all(step > share * num_steps or step == num_steps for step in late)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    model = small_model()

    def loss(model: Any, rows: Any) -> torch.Tensor:
        return model(torch.full((1, 4), math.inf)).sum()

    course, scratch = Course([np.array([0])], loss, SCHEDULE), Scratch("s", "k", tmp_path)
    with pytest.raises(RuntimeError, match="non-finite"):
        train(model, course, CPU, scratch, lambda *_: {}, lambda *_: None)


@given(
    num_train=st.integers(1, 40),
    num_transfer=st.integers(0, 40),
    labelled=st.integers(0, 3),
    transfer=st.floats(0, 3),
    batch=st.integers(1, 16),
    seed=st.integers(0, 9),
)
def test_the_budget_is_spent_exactly(
    num_train: int, num_transfer: int, labelled: int, transfer: float, batch: int, seed: int
) -> None:
    lengths = np.arange(num_train + num_transfer) % 7 + 3
    batches = plan_batches(lengths, num_train, labelled, transfer, batch, seed)
    rows = np.concatenate([*batches, np.zeros(0, dtype=np.int64)])
    assert (np.bincount(rows[rows < num_train], minlength=num_train)[:num_train] == labelled).all()
    expected = round(transfer * num_transfer)
    assert (rows >= num_train).sum() == expected
    assert all(len(b) <= batch for b in batches)


@given(rows=st.lists(st.integers(0, 50), max_size=120), count=st.integers(1, 60), batch=st.integers(1, 16))
def test_spread_rows_are_of_the_batches_and_reach_over_all_of_them(rows: list[int], count: int, batch: int) -> None:
    batches = [np.array(rows[i : i + batch], dtype=np.int64) for i in range(0, len(rows), batch)]
    found, distinct = spread_rows(batches, count).tolist(), sorted(set(rows))
    assert len(found) == min(count, len(distinct))
    assert found == sorted(set(found))
    assert set(found) <= set(distinct)
    places = [distinct.index(row) for row in found]
    assert all(later - earlier <= -(-len(distinct) // count) for earlier, later in pairwise([*places, len(distinct)]))


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300), batch=st.integers(1, 32))
def test_buckets_hold_every_row_once(lengths: list[int], batch: int) -> None:
    batches = shuffled_buckets(np.array(lengths), batch, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


def test_collate_pads_and_masks() -> None:
    tokens = TokenSet(np.array([5, 6, 7, 8], dtype=np.int32), np.array([0, 3, 4]))
    ids, mask = collate(tokens, np.array([1, 0]), pad_id=9)
    assert ids.tolist() == [[8, 9, 9], [5, 6, 7]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    both = joined(tokens, tokens)
    assert collate(both, np.array([2, 3]))[0].tolist() == [[5, 6, 7], [8, 0, 0]]


def trained_in_parts(folder: Path, parts: int, batch_rows: int) -> dict[str, torch.Tensor]:
    """Return the weights after 12 steps of `batch_rows` rows, in double precision, each computed in `parts` parts."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    x = torch.linspace(-1, 1, 160, dtype=torch.float64).reshape(40, 4)
    targets = torch.arange(40) % 2
    batches = [np.random.default_rng(step).permutation(40)[:batch_rows] for step in range(12)]

    def loss(model: Any, rows: Any) -> torch.Tensor:
        chosen = torch.from_numpy(rows)
        return torch.nn.functional.cross_entropy(model(x[chosen]), targets[chosen])

    schedule = dataclasses.replace(SCHEDULE, accumulate=parts)
    scratch = Scratch("s", str(parts), folder)
    train(model, Course(batches, loss, schedule), CPU, scratch, lambda *_: {}, lambda *_: None)
    return model.state_dict()


@given(parts=st.integers(2, 9), batch_rows=st.integers(1, 8))
def test_a_batch_in_parts_gives_the_weights_of_the_whole_batch(
    tmp_path_factory: pytest.TempPathFactory, parts: int, batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    whole, cut = (trained_in_parts(folder, count, batch_rows) for count in (1, parts))
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], atol=1e-9, rtol=1e-7)


def test_parts_of_a_batch_share_what_is_rounded_of_the_weights_and_steps_do_not(tmp_path: Path) -> None:
    """In bf16: the same bits as with parts that each round the weights anew."""
    device = Device(torch.device("cpu"), "bf16", 1)
    schedule = dataclasses.replace(SCHEDULE, accumulate=2, max_gradient_norm=1e9)
    x = torch.linspace(-1, 1, 40).reshape(10, 4)
    batches = [np.array([step % 10, (3 * step + 1) % 10]) for step in range(4)]

    def loss(model: Any, rows: Any) -> torch.Tensor:
        return (model(x[torch.from_numpy(rows)]) ** 2).mean()

    def model_without_dropout() -> torch.nn.Module:
        return small_model().eval().requires_grad_()

    found = model_without_dropout()
    found[1].p = 0.0
    scratch = Scratch("distill@r1", "key", tmp_path)
    train(found, Course(batches, loss, schedule), device, scratch, lambda *_: {}, lambda *_: None)

    expected = model_without_dropout()
    optimiser = make_optimiser(expected, schedule, device)
    for step, rows in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step, len(batches))
        for part in np.array_split(rows, 2):
            with device.autocast():
                half = loss(expected, part) * 0.5
            half.backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = small_model().state_dict()
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name
        assert not torch.equal(weight, changed[name])


def test_gradients_of_what_is_computed_exactly_are_exact() -> None:
    device = Device(torch.device("cpu"), "bf16", 1)
    weight, x = torch.nn.Parameter(torch.full((3, 3), 1.0 + 2.0**-12)), torch.full((2, 3), 1.0 + 2.0**-12)
    with device.autocast():
        with device.exactly():
            value = (x @ weight).sum()
        with device.exactly():
            value.backward()
    assert torch.equal(weight.grad, torch.full((3, 3), 2.0 * (1.0 + 2.0**-12)))
