"""Logits of a model on many rows, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data.tokens import TokenSet, bucketed, collate
from tasks.models.checkpoint import pad_id
from tasks.models.devices import Device


def predict_logits(
    model: Any,
    tokens: TokenSet,
    batch_rows: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return float32 logits of shape (rows, classes) in row order; `on_batch` hears how many rows are done."""
    model.eval().to(device.device)
    logits: NDArray[np.float32] | None = None
    done = 0
    with torch.inference_mode(), device.autocast():
        for rows in bucketed(tokens.lengths, batch_rows):
            ids_BT, mask_BT = (
                torch.from_numpy(array).to(device.device) for array in collate(tokens, rows, pad_id(model))
            )
            batch = model(input_ids=ids_BT, attention_mask=mask_BT).logits.float().cpu().numpy()
            if logits is None:
                logits = np.zeros((len(tokens), batch.shape[1]), dtype=np.float32)
            logits[rows] = batch
            done += len(rows)
            if on_batch is not None:
                on_batch(done)
    assert logits is not None, "an empty set has no logits"
    return logits
