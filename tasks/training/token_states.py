"""An extra loss of a language model's distillation: what a layer of the student holds at each token, and of the teacher.

Both read the same tokens, so their states correspond one by one. Letters: B blocks, T tokens, D channels of the student, E of
the teacher.
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
from tasks.training.hidden import HIDDEN_LOSSES, Projection, fit_projection

LAST_BUT: Final = 2  # layers above the pair: a map onto the student's last layer is worse than none (arXiv:2407.14679)
SAMPLE_TOKENS: Final = 2048  # on which a projection is fitted and the teacher's channels are standardised
SMALLEST_DEVIATION: Final = 1e-3


@dataclass
class TokenMatch:
    """The student's states, projected, against the standardised states of the teacher, both two layers below the last."""

    name: str
    weight: float | None  # None: the ratio of the two losses
    until_share: float
    layers: tuple[int, int]  # of student and teacher, counted from 1
    mean_E: Tensor
    deviation_E: Tensor
    projection: Projection
    active: bool = True

    def begin(self, share: float) -> None:
        """Hear which share of the steps is done."""
        self.active = share < self.until_share

    def loss(self, states_BTD: Tensor, teacher_BTE: Tensor) -> Tensor:
        """Return the mean over tokens of the loss, a scalar; see `HIDDEN_LOSSES`."""
        wanted_NE = (teacher_BTE.float().flatten(0, 1) - self.mean_E) / self.deviation_E
        projected = self.projection(states_BTD.float().flatten(0, 1)[:, None, None])
        return HIDDEN_LOSSES[self.name](projected, wanted_NE[:, None, None]).mean()


def token_match(
    student: Any,
    teacher: Any,
    blocks: Blocks,
    device: Device,
    kept_V: Tensor | None,
    *,
    name: str,
    weight: float | None,
    until_share: float,
) -> TokenMatch:
    """Return the loss with its projection fitted on blocks spread over the training set.

    Raises DataError when a model has too few layers to have one two below its last.
    """
    depths = num_layers(student), num_layers(teacher)
    if min(depths) <= LAST_BUT:
        raise DataError(
            f"distill.hidden: compares layers {LAST_BUT} below the last, and student and teacher have {depths[0]} and "
            f"{depths[1]}; give the round at least 3 layers, or set distill.hidden: null"
        )
    layers = depths[0] - LAST_BUT, depths[1] - LAST_BUT
    count = min(len(blocks), max(1, SAMPLE_TOKENS // blocks.shape[1]))
    rows = np.unique(np.linspace(0, len(blocks) - 1, count).astype(np.int64))
    ids_BT = torch.from_numpy(np.asarray(blocks[rows], dtype=np.int64)).to(device.device)
    student.to(device.device).eval()
    teacher.to(device.device).eval()
    kept_V = None if kept_V is None else kept_V.to(device.device)
    with torch.no_grad():
        _, ours_BTD = predicting_beside(student, ids_BT, layers[0])
        _, theirs_BTE = predicting_beside(teacher, ids_BT, layers[1], kept_V)
    assert ours_BTD is not None, "a layer was asked for"
    assert theirs_BTE is not None, "a layer was asked for"
    ours, theirs = ours_BTD.float().cpu().flatten(0, 1), theirs_BTE.float().cpu().flatten(0, 1)
    mean_E, deviation_E = theirs.mean(dim=0), theirs.std(dim=0, correction=0).clamp(min=SMALLEST_DEVIATION)
    projection = fit_projection(ours[:, None, None], ((theirs - mean_E) / deviation_E)[:, None, None])
    return TokenMatch(
        name,
        weight,
        until_share,
        layers,
        mean_E.to(device.device),
        deviation_E.to(device.device),
        projection.to(device.device),
    )
