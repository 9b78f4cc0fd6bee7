"""Which layers to drop: a contiguous block, because scattered "least important" layers do worse after retraining.

Source: arXiv:2408.11796, section 4 (layers 16-31 of 32 beat the 16 least important ones).
"""

from __future__ import annotations

import torch
from torch import Tensor


def blocks(num_layers: int, num_kept: int, first: int = 1, last: int = 0) -> list[set[int]]:
    """Return the contiguous blocks of layers that may be dropped, the `first` and `last` ones protected.

    The very first layer stays in any case, it reads the embeddings.
    """
    dropped = num_layers - num_kept
    if dropped == 0:
        return [set()]
    return [set(range(start, start + dropped)) for start in range(first, num_layers - dropped - last + 1)]


def protected_ends(num_kept: int) -> tuple[int, int]:
    """Return how many first and last layers of a language model stay: two each, fewer where fewer are kept."""
    return max(1, min(2, num_kept // 2)), min(2, num_kept // 2)


def influence(before_BTD: Tensor, after_BTD: Tensor) -> Tensor:
    """Return 1 - cos between what enters and what leaves a block of layers, shape (B, T); 0 where it changes no direction.

    Source: Block Influence of Men et al., arXiv:2403.03853, eq. 1, over a block instead of one layer.
    """
    return 1.0 - torch.nn.functional.cosine_similarity(before_BTD, after_BTD, dim=-1)


def harm_nats_per_row(parent_logits_BC: Tensor, logits_BC: Tensor) -> float:
    """Return KL(parent || without the block), nats per row, mean over rows; zero when nothing changed."""
    log_parent = torch.log_softmax(parent_logits_BC.double(), dim=-1)
    log_without = torch.log_softmax(logits_BC.double(), dim=-1)
    return float((log_parent.exp() * (log_parent - log_without)).sum(dim=-1).mean())
