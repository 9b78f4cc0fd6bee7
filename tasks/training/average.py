"""A running average of the weights while they train: it forgets the noise of single steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

WARM_UP_STEPS = 9  # at step t the decay is at most t / (t + 9), so that the start is soon forgotten


class Average:
    """The exponential moving average of a model's trained weights: average = d * average + (1 - d) * weights.

    d is `decay`, and less in the first steps: min(decay, t / (t + 9)) after step t, counted from 1. Source: Polyak and
    Juditsky, SIAM J. Control Optim. 30(4), 1992, in its exponential form; the early decays are those of TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self._values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def update(self, model: Any, step: int) -> None:
        """Take in the weights as they are after a step, counted from 1."""
        decay = min(self._decay, step / (step + WARM_UP_STEPS))
        weights = dict(model.named_parameters())
        for name, value in self._values.items():
            value.lerp_(weights[name].detach(), 1.0 - decay)

    @contextmanager
    def in_place(self, model: Any) -> Iterator[None]:
        """Make the model hold the average while the context lasts, and its own weights again after it."""
        weights = dict(model.named_parameters())
        own = {name: weights[name].detach().clone() for name in self._values}
        _write(weights, self._values)
        try:
            yield
        finally:
            _write(weights, own)

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs to go on."""
        return self._values

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        _write(self._values, state)


def _write(into: dict[str, Any], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            into[name].copy_(value)
