"""Blocks on the device, and the precision of the heads: what a language model's training and its teacher's cache share."""

from __future__ import annotations

import numpy as np
import torch

from tasks.data.blocks import Blocks, Rows
from tasks.models.devices import Device


def block_batch(blocks: Blocks, rows: Rows, device: Device) -> torch.Tensor:
    """Return the tokens of these blocks, int64 (B, T), where the arithmetic runs."""
    return torch.from_numpy(np.asarray(blocks[rows], dtype=np.int64)).to(device.device)


def head_dtype(device: Device) -> torch.dtype:
    """Return in which precision the heads' matrix products run."""
    return torch.bfloat16 if device.precision == "bf16" else torch.float32
