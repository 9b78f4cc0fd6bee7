"""Masks over the single weights of a model's layers, kept while it trains.

Masked are the matrix products inside the layers. Embeddings, the pooler, the head, biases and norms stay as they are.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.models.architectures import layers_of
from tasks.pruning.masks import cubic_sparsity, keep_largest, linear_sparsity, sparsity_of

SCHEDULES: Final = {"cubic": cubic_sparsity, "linear": linear_sparsity}
UPDATES: Final = 100  # of the masks, in a training with a schedule, if it has so many steps
GROWN_AFTER: Final = 0.5  # share of the steps after which no more weights go; checkpoints are taken from there on


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
    masks = {name: module.weight.detach() != 0 for name, module in products(model).items()}
    return sparsity_of(masks, model.num_parameters())


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
            self._masks = {name: module.weight.detach() != 0 for name, module in products(self._model).items()}
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
