"""What a model says of many rows, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.tokens import TokenSet, bucketed, collate
from tasks.models.checkpoint import pad_id
from tasks.models.devices import Device

Rows = NDArray[np.int64]


def predict_batches(
    model: Any,
    tokens: TokenSet,
    batch_rows: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
    **wanted: bool,
) -> Iterator[tuple[Rows, Tensor, Any]]:
    """Yield the rows of each batch, their mask (B, T), and the model's outputs without gradients; every row once.

    `wanted` are further arguments of the model; `on_batch` hears how many rows are done.
    """
    model.eval().to(device.device)
    done = 0
    for rows in bucketed(tokens.lengths, batch_rows):
        ids_BT, mask_BT = (torch.from_numpy(array).to(device.device) for array in collate(tokens, rows, pad_id(model)))
        with torch.inference_mode(), device.autocast():
            outputs = model(input_ids=ids_BT, attention_mask=mask_BT, **wanted)
        yield rows, mask_BT, outputs
        done += len(rows)
        if on_batch is not None:
            on_batch(done)


def predict_logits(
    model: Any,
    tokens: TokenSet,
    batch_rows: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return float32 logits of shape (rows, classes) in row order; `on_batch` hears how many rows are done."""
    logits = np.zeros((len(tokens), model.config.num_labels), dtype=np.float32)
    for rows, _, outputs in predict_batches(model, tokens, batch_rows, device, on_batch):
        logits[rows] = outputs.logits.float().cpu().numpy()
    return logits
