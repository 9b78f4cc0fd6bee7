"""An extra loss of a language model's distillation: what a layer of the student holds at each token, and of the teacher.

Both read the same tokens, so their states correspond one by one. Letters: B blocks, T tokens, D channels of the student, E of
the teacher; each token is a row (N = B x T) of one layer and one kind of state (L = K = 1) for `tasks.training.hidden`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from tasks.data.blocks import Blocks
from tasks.errors import DataError
from tasks.models.architectures import num_layers
from tasks.models.devices import Device
from tasks.models.predict import predicting_beside
from tasks.params.causal_lm import TokenHidden
from tasks.training.hidden import StateMatch, fit_match, fixed_weight

LAST_BUT: Final = 2  # layers above the pair: a map onto the student's last layer is worse than none (arXiv:2407.14679)
SAMPLE_TOKENS: Final = 2048  # on which a projection is fitted and the teacher's channels are standardised


@dataclass
class TokenMatch:
    """The student's states against those of the teacher, both two layers below the last."""

    weight: float | None  # None: the ratio of the two losses
    until_share: float
    layers: tuple[int, int]  # of student and teacher, counted from 1
    match: StateMatch
    active: bool = True

    def begin(self, share: float) -> None:
        """Hear which share of the steps is done."""
        self.active = share < self.until_share

    def loss(self, states_BTD: Tensor, teacher_BTE: Tensor) -> Tensor:
        """Return the mean over tokens of the loss, a scalar; see `HIDDEN_LOSSES`."""
        return self.match(_rows(states_BTD), _rows(teacher_BTE)).mean()


def token_match(
    student: Any, teacher: Any, blocks: Blocks, device: Device, kept_V: Tensor | None, section: TokenHidden
) -> TokenMatch:
    """Return the loss of a section with its projection fitted on blocks spread over the training set.

    `kept_V` is the teacher's id of each of the student's tokens, None where they are the same. Raises DataError when a model
    has too few layers to have one two below its last.
    """
    depths = num_layers(student), num_layers(teacher)
    if min(depths) <= LAST_BUT:
        raise DataError(
            f"distill.hidden: compares layers {LAST_BUT} below the last, and student and teacher have {depths[0]} and "
            f"{depths[1]}; give the round at least 3 layers, or set distill.hidden: null"
        )
    layers = depths[0] - LAST_BUT, depths[1] - LAST_BUT
    count = min(len(blocks), max(1, SAMPLE_TOKENS // blocks.shape[1]))
    chosen = np.unique(np.linspace(0, len(blocks) - 1, count).astype(np.int64))
    ids_BT = torch.from_numpy(np.asarray(blocks[chosen], dtype=np.int64)).to(device.device)
    samples = []
    for model, layer, ids_V in ((student, layers[0], None), (teacher, layers[1], kept_V)):
        model.to(device.device).eval()
        with torch.no_grad():
            _, states = predicting_beside(model, ids_BT, layer, None if ids_V is None else ids_V.to(device.device))
        assert states is not None, "a layer was asked for"
        samples.append(_rows(states).cpu())
    match = fit_match(section.loss, samples[0], samples[1], device.device)
    return TokenMatch(fixed_weight(section.weight), section.until_share, layers, match)


def _rows(states_BTX: Tensor) -> Tensor:
    """Return the states of each token as a row, fp32 (N, 1, 1, X)."""
    return states_BTX.float().flatten(0, 1)[:, None, None]
