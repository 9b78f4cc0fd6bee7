"""The one training loop: batches in, trained weights out, able to go on after a kill with the same result."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.models.devices import Device
from tasks.training.average import Average

Rows = NDArray[np.int64]
RECORDS: Final = 100  # points of the training curve


@dataclass(frozen=True)
class Schedule:
    """The optimiser's settings: AdamW, linear warm-up over `warmup_share` of the steps, then linear decay to zero."""

    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_gradient_norm: float
    checkpoints: int
    seed: int
    accumulate: int = 1  # parts in which a batch is computed, one after the other
    checkpoints_from: float = 0.0  # share of the steps before which none is taken
    average: float | None = None  # decay of the running average that checkpoints hold instead of the weights

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warmup = max(1, math.ceil(self.warmup_share * num_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (num_steps - step) / max(1, num_steps - warmup)

    def checkpoint_steps(self, num_steps: int) -> set[int]:
        """Return after how many steps a checkpoint is due; the last is always the end."""
        count = min(self.checkpoints, num_steps)
        steps = {num_steps * (i + 1) // count for i in range(count)}
        return {step for step in steps if step == num_steps or step > self.checkpoints_from * num_steps}


@dataclass(frozen=True)
class Course:
    """A training from its first batch to its last: what is minimised, over which batches, and how fast.

    `loss(model, rows)` is a scalar mean over rows. `beside` has parameters that train with the model's. `begin` hears before
    each step which share of them is done; `update` may change the weights after it, and before they are a checkpoint.
    """

    batches: Sequence[Rows]
    loss: Callable[[Any, Rows], Tensor]
    schedule: Schedule
    beside: nn.Module | None = None
    begin: Callable[[float], None] = lambda _share: None
    update: Callable[[], None] = lambda: None


class Store(Protocol):
    """Where the loop keeps its state between kills, and tells its numbers."""

    def load(self) -> dict[str, Any] | None: ...
    def due(self) -> bool: ...
    def save(self, state: dict[str, Any]) -> None: ...
    def record(self, line: dict[str, Any]) -> None: ...


def train(
    model: Any,
    course: Course,
    device: Device,
    store: Store,
    on_checkpoint: Callable[[Any, int], dict[str, Any]],
    on_step: Callable[[int, float], None],
) -> None:
    """Train `model` in place, one optimiser step a batch.

    `on_checkpoint(model, step)` evaluates and saves, and returns the numbers to record; with `schedule.average` the model holds
    the averaged weights meanwhile. `on_step` hears the step and the loss since the last record. With the same inputs the
    weights are the same, whether or not the process was killed between.

    With several processes each computes its share of the rows of every batch, and all take the same steps; the first alone
    calls `on_checkpoint`, `on_step` and the store, and only it returns.
    """
    processes, schedule = device.processes, course.schedule
    device.prepare(model)
    torch.manual_seed(schedule.seed + processes.rank)  # dropout drops other units in each process
    state = processes.of_first(store.load)
    first, running = 0, [0.0, 0.0]
    if state is not None:
        first, running = int(state["step"]), list(state["running"])
        model.load_state_dict(state["model"])
    model.train()
    learning = Learning(model, course, device)
    average = learning.average
    if state is not None:
        learning.restore(state)
    num_steps = len(course.batches)
    checkpoint_steps = schedule.checkpoint_steps(num_steps)
    record_every = max(1, num_steps // RECORDS)
    for step in range(first, num_steps):
        course.begin(step / num_steps)
        rate = schedule.rate(step, num_steps)
        loss = learning.step(course.batches[step], rate)
        course.update()
        done = step + 1
        if average is not None:
            average.update(model, done)
        running = [running[0] + loss, running[1] + 1.0]
        if processes.first:
            on_step(done, running[0] / running[1])
        if done % record_every == 0 or done == num_steps:
            if processes.first:
                store.record({"step": done, "loss": running[0] / running[1], "learning_rate": rate})
            running = [0.0, 0.0]
        if done in checkpoint_steps:
            learning.bring_home()
        if processes.first and done in checkpoint_steps:
            with contextlib.nullcontext() if average is None else average.in_place(model):
                course.update()  # an average remembers what has gone since
                store.record({"step": done, **on_checkpoint(model, done)})
            model.train()
        if processes.of_first(store.due):
            saved = learning.state()
            if processes.first:
                store.save({**saved, "step": done, "running": running})
    processes.end_others()


class _Step(nn.Module):  # type: ignore[misc]
    """The loss of some rows as a module that holds every weight which trains: what is wrapped for several processes."""

    def __init__(self, model: Any, course: Course) -> None:
        super().__init__()
        self.model, self.beside, self._loss = model, course.beside, course.loss

    def forward(self, rows: Rows) -> Tensor:
        """Return the loss, a mean over rows."""
        return self._loss(self.model, rows)


class Learning:
    """What trains, wrapped for the processes of its group, and its optimiser.

    `model` is what the first process measures and saves. `trained` are its weights as they train: the same object, but where each
    process holds a share alone; then the first one's model has the weights of the last `bring_home`.
    """

    def __init__(self, model: Any, course: Course, device: Device) -> None:
        self._device, self._processes = device, device.processes
        self.model, self.beside, self.schedule = model, course.beside, course.schedule
        shares = self._processes.shares
        self.trained = model if shares is None else shares.to_cut(model, self._processes.first)
        self.step_loss = self._processes.wrap(_Step(self.trained, course))
        self.optimiser = make_optimiser(self.trained, course.schedule, device, course.beside)
        self.average = None if self.schedule.average is None else Average(model, self.schedule.average)

    def step(self, rows: Rows, rate: float) -> float:
        """Take one optimiser step on a batch, and return its loss, the mean over its rows.

        The batch is computed in `schedule.accumulate` parts, each weighted by its share of the rows: the gradient is that of
        the whole batch, to rounding, and only one part's activations are held at a time. Of several processes each computes its
        share of a part; the mean of their gradients, and so the norm at which they are clipped, is that of the whole batch.
        """
        device, processes = self._device, self._processes
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        total = 0.0
        parts = np.array_split(rows, min(self.schedule.accumulate, len(rows)))
        # Parts share what is rounded of the weights; of weights that come and go nothing may stay.
        with device.autocast() if processes.shares is None else contextlib.nullcontext():
            for number, part in enumerate(parts, start=1):
                own, share = processes.share(part)
                with processes.gradients_stay(self.step_loss, until=number == len(parts)):
                    with device.autocast():
                        loss = self.step_loss(own) * (processes.count * share * len(part) / len(rows))
                    with device.exactly():  # each gradient in the precision of what it is of
                        loss.backward()
                total += float(loss.detach()) / processes.count
        total = processes.sum(total)
        self._clip(self.schedule.max_gradient_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def bring_home(self) -> None:
        """Give the first process's model the weights as they are now."""
        if self._processes.shares is not None:
            self._processes.shares.bring_home(self.trained, self.model, self._processes.first)

    def _clip(self, max_norm: float) -> None:
        """Scale gradients down to the norm; RuntimeError where one is not finite."""
        shares = self._processes.shares
        modules = [self.trained] if self.beside is None else [self.trained, self.beside]
        for module in modules:  # each by itself: one must not slow the other down
            norm = nn.utils.clip_grad_norm_(module.parameters(), max_norm, error_if_nonfinite=shares is None)
            if shares is not None and not torch.isfinite(shares.whole(norm)):
                raise RuntimeError("the norm of the gradients is not finite")

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on, whole also where each process holds a share."""
        self.bring_home()
        shares = self._processes.shares
        optimiser = self.optimiser.state_dict() if shares is None else shares.optimiser_state(self.step_loss, self.optimiser)
        return {
            "model": self.model.state_dict(),
            "beside": {} if self.beside is None else self.beside.state_dict(),
            "optimiser": optimiser,
            "average": {} if self.average is None else self.average.state(),
            "rng": self._processes.gather([torch.get_rng_state(), *self._device_rng()]),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose weights the model has already."""
        if self.beside is not None:
            self.beside.load_state_dict(state["beside"])
        if self._processes.shares is None:
            self.optimiser.load_state_dict(state["optimiser"])
        else:
            self._processes.shares.restore_optimiser(self.step_loss, self.optimiser, state["optimiser"])
        host, *device = state["rng"][self._processes.rank]
        torch.set_rng_state(host)
        for generator in device:
            torch.cuda.set_rng_state(generator, self._device.device)
        if self.average is not None:
            self.average.restore(state["average"])

    def _device_rng(self) -> list[Tensor]:
        """Return the generator state of the accelerator, which dropout draws from there."""
        where = self._device.device
        return [torch.cuda.get_rng_state(where)] if where.type == "cuda" else []


def make_optimiser(model: Any, schedule: Schedule, device: Device, beside: nn.Module | None = None) -> torch.optim.AdamW:
    """Return AdamW over the model and what trains beside it; weight decay on the model's matrices only, as is usual."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if beside is not None:
        groups.append({"params": list(beside.parameters()), "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=device.device.type in ("cpu", "cuda"))
