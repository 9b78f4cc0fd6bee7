"""What a language model says of token blocks: likelihoods and first choices, without ever holding all logits.

Letters: N blocks, T tokens of a block, V pieces of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.distillation.causal import next_tokens, predicting
from tasks.models.devices import Device


@dataclass(frozen=True)
class BlockPredictions:
    """For each block the negative log-likelihood of its tokens but the first, summed, nats; and the first choices.

    `nll_nats_N` is float64; `choices_NT` int32 (N, T - 1), the piece that the model holds most likely at each place.
    """

    nll_nats_N: NDArray[np.float64]
    choices_NT: NDArray[np.int32]

    @property
    def nats_per_token(self) -> float:
        """The mean over all predicted tokens."""
        return float(self.nll_nats_N.sum() / self.choices_NT.size)


def predict_blocks(
    model: Any,
    blocks: NDArray[np.int32],
    batch_blocks: int,
    chunk_tokens: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
) -> BlockPredictions:
    """Return the predictions of a model on blocks (N, T); `on_batch` hears how many blocks are done."""
    nll_NT, choices_NT = predict_tokens(model, blocks, batch_blocks, chunk_tokens, device, on_batch)
    return BlockPredictions(nll_NT.sum(axis=1, dtype=np.float64), choices_NT)


def predict_tokens(
    model: Any,
    blocks: NDArray[np.int32],
    batch_blocks: int,
    chunk_tokens: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
    kept_V: torch.Tensor | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the nats of each token but the first and the first choices, both (N, T - 1).

    `kept_V` is as in `tasks.distillation.causal.predicting`: blocks and choices are in the student's tokens.
    """
    model.eval().to(device.device)
    nll, choices = [], []
    with torch.inference_mode(), device.autocast():
        for start in range(0, len(blocks), batch_blocks):
            batch = np.asarray(blocks[start : start + batch_blocks], dtype=np.int64)
            ids_BT = torch.from_numpy(batch).to(device.device)
            head, targets_N = predicting(model, ids_BT, kept_V), next_tokens(ids_BT)
            parts = [
                _token_predictions(hidden @ head.weight_VD.T, targets)
                for hidden, targets in zip(
                    head.hidden_ND.split(chunk_tokens), targets_N.split(chunk_tokens), strict=True
                )
            ]
            shape = (len(batch), -1)
            nll.append(torch.cat([part[0] for part in parts]).reshape(shape).cpu().numpy())
            choices.append(torch.cat([part[1] for part in parts]).reshape(shape).int().cpu().numpy())
            if on_batch is not None:
                on_batch(start + len(batch))
    return np.concatenate(nll), np.concatenate(choices)


def _token_predictions(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the negative log-likelihood of each target and the most likely piece."""
    nll_N = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return nll_N, logits_NV.argmax(dim=-1)
