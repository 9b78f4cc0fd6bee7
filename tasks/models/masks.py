"""Masks over single weights: True = keep. Shapes stay as they were, so a dense runtime gains no speed and no memory.

Masked are the matrix products inside the layers. Embeddings, the pooler, the head, biases and norms stay as they are.

Letters: O outputs, I inputs of a matrix product, as in `nn.Linear.weight`; M weights of a group of which N stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.models.architectures import layers_of

UPDATES: Final = 100  # of the masks, in a training with a schedule, if it has so many steps
GROWN_AFTER: Final = 0.5  # share of the steps after which no more weights go; checkpoints are taken from there on


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Return a mask of the shape of `scores` with round(sparsity x size) entries False, those of the lowest scores.

    Among equal scores the first go first. Ranked over the whole tensor; give it rows to rank them by themselves, as
    Wanda does (`keep_largest_by_row`). Raises ValueError when sparsity is not in [0, 1] or a score is not finite.
    """
    return keep_largest_by_row(scores.reshape(1, -1), sparsity).reshape(scores.shape)


def keep_largest_by_row(scores_OI: Tensor, sparsity: float) -> Tensor:
    """Return a mask of shape (O, I) with round(sparsity x I) entries of every row False, those of the lowest scores.

    Source: Sun et al., arXiv:2306.11695, section 3. Raises ValueError when sparsity is not in [0, 1] or a score is not
    finite.
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity {sparsity} is not in 0..1")
    _check_finite(scores_OI)
    gone = round(sparsity * scores_OI.shape[1])
    mask_OI = torch.ones_like(scores_OI, dtype=torch.bool)
    order = torch.sort(scores_OI, dim=1, stable=True).indices
    return mask_OI.scatter(1, order[:, :gone], False)


def keep_n_of_m(scores_OI: Tensor, n: int, m: int) -> Tensor:
    """Return a mask of shape (O, I) that keeps the N largest of each M neighbouring inputs; ties keep the first.

    Source: Mishra et al., arXiv:2104.08378 (2:4). Raises ValueError when M does not divide I, N is not in 1..M, or a
    score is not finite.
    """
    if not 1 <= n <= m or scores_OI.shape[1] % m:
        raise ValueError(f"{n}:{m} does not fit rows of {scores_OI.shape[1]} weights")
    _check_finite(scores_OI)
    groups = scores_OI.reshape(-1, m)
    order = torch.sort(groups, dim=1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter(1, order[:, :n], True)
    return mask.reshape(scores_OI.shape)


def cubic_sparsity(step: int, start: int, end: int, initial: float, final: float) -> float:
    """Return the sparsity after `step` steps: `initial` until `start`, `final` from `end` on, fast at first between.

    final + (initial - final) * (1 - (step - start) / (end - start))**3. Source: Zhu and Gupta, arXiv:1710.01878, eq. 1.
    Raises ValueError unless start < end.
    """
    return final + (initial - final) * (1.0 - _share_done(step, start, end)) ** 3


def linear_sparsity(step: int, start: int, end: int, initial: float, final: float) -> float:
    """Return the sparsity after `step` steps: `initial` until `start`, `final` from `end` on, evenly between.

    Raises ValueError unless start < end.
    """
    return initial + (final - initial) * _share_done(step, start, end)


def _share_done(step: int, start: int, end: int) -> float:
    if start >= end:
        raise ValueError(f"a schedule from step {start} to step {end} has no steps")
    return min(max((step - start) / (end - start), 0.0), 1.0)


SCHEDULES: Final = {"cubic": cubic_sparsity, "linear": linear_sparsity}


def sparsity_of(masks: Mapping[str, Tensor], params_total: int) -> dict[str, float | int]:
    """Return the weights that were zeroed, and their share of the masked weights and of all parameters of the model.

    The two shares differ because embeddings, biases and norms are not masked: say which one is meant.
    """
    masked = sum(mask.numel() for mask in masks.values())
    zeroed = sum(int((~mask).sum()) for mask in masks.values())
    if masked == 0 or params_total < masked:
        raise ValueError(f"{masked} masked weights of {params_total} parameters: there is no share of them")
    return {
        "weights_zeroed": zeroed,
        "weights_masked": masked,
        "params_total": params_total,
        "sparsity_of_masked": zeroed / masked,
        "sparsity_of_total": zeroed / params_total,
    }


def _check_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite; the calibration set or the model is broken")


def products(model: Any) -> dict[str, nn.Module]:
    """Return the matrix products inside the layers, by their names in the model."""
    prefix, layers = layers_of(model)
    return {
        f"{prefix}.{name}": module
        for name, module in layers.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 2
    }


def apply_masks(model: Any, masks: dict[str, Tensor]) -> None:
    """Set the weights that a mask drops to zero, in place."""
    with torch.no_grad():
        for name, module in products(model).items():
            module.weight.masked_fill_(~masks[name].to(module.weight.device), 0.0)


def zero_weights(model: Any) -> dict[str, float | int]:
    """Return what `sparsity_of` does, of the weights that are zero now."""
    return sparsity_of(_not_zero(model), model.num_parameters())


def _not_zero(model: Any) -> dict[str, Tensor]:
    return {name: module.weight.detach() != 0 for name, module in products(model).items()}


class Masker:
    """Keeps a student's zero weights at zero while it trains; with a schedule more weights go, the smallest first.

    The masks are where weights are not zero, so a killed training finds them in its saved weights.
    """

    def __init__(self, model: Any, schedule: str, sparsity: float) -> None:
        self._model, self._schedule, self._sparsity = model, schedule, sparsity
        self._masks: dict[str, Tensor] = {}
        self._update = -1

    def begin(self, share: float) -> None:
        """Hear which share of the steps is done, before a step."""
        if not self._masks:
            self._masks = _not_zero(self._model)
        last = round(GROWN_AFTER * UPDATES)
        update = min(int(share * UPDATES), last)
        if self._schedule != "single" and update != self._update:  # doing one again changes nothing: zeros are smallest
            self._update = update
            sparsity = SCHEDULES[self._schedule](update, 0, last, 0.0, self._sparsity)
            for name, module in products(self._model).items():
                self._masks[name] &= keep_largest(module.weight.detach().abs(), sparsity)
            self.apply()

    def apply(self) -> None:
        """Set what is masked to zero again."""
        apply_masks(self._model, self._masks)
