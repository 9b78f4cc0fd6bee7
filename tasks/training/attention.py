"""Attention of a language model over short blocks as plain bf16 matrix products, for training on a CPU.

The fused kernel of torch 2.13 is slow there in bf16, in its backward pass most of all, and transformers' own plain one keeps
the weights of every layer in fp32 too. Scores are rounded to bf16 once, as those of transformers' are under autocast.

Letters: B blocks, H query heads, K key-value heads, G query heads of each, T tokens, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from tasks.models.checkpoint import attend_with
from tasks.models.devices import Device

NAME: Final = "compactlm_short_blocks"
LONGEST: Final = 256  # tokens; at 512 both are as fast, and the weights grow with the square


def attend_in_short_blocks(model: Any, device: Device) -> None:
    """Make the model compute attention over whole blocks of up to `LONGEST` tokens as matrix products, on a CPU in bf16.

    Everything else, elsewhere and otherwise, goes to the fused kernel as before. Results differ by rounding alone, and nothing
    of it is saved with the model.
    """
    if device.device.type == "cpu" and device.precision == "bf16":
        attend_with(model, NAME, _attend)


def _attend(
    fused: Callable[..., tuple[Tensor, None]],
    module: Any,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    mask: Tensor | None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return (B, T, H, D) and None, as transformers asks of an attention function; without a mask it is causal.

    `more` holds `dropout`, and `scaling` where that is not 1 / sqrt(D).
    """
    tokens, channels = query_BHTD.shape[2:]
    short = tokens == key_BKTD.shape[2] and 1 < tokens <= LONGEST
    plain = mask is None and more.get("dropout", 0.0) == 0.0 and torch.is_autocast_enabled("cpu")
    if not (short and plain):
        return fused(module, query_BHTD, key_BKTD, value_BKTD, mask, **more)
    blocks, heads = query_BHTD.shape[:2]
    pairs = blocks * key_BKTD.shape[1]  # of a block and a key-value head; its G query heads are rows of one product
    query, key, value = (states.to(torch.bfloat16).reshape(pairs, -1, channels) for states in (query_BHTD, key_BKTD, value_BKTD))
    later_TT = torch.full((tokens, tokens), float("-inf"), dtype=torch.bfloat16).triu(1)
    later = later_TT.repeat(query.shape[1] // tokens, 1).expand(pairs, -1, -1)
    scaling = more.get("scaling")
    scores = torch.baddbmm(later, query, key.transpose(1, 2), alpha=channels**-0.5 if scaling is None else scaling)
    states = torch.bmm(torch.softmax(scores, dim=-1, dtype=torch.bfloat16), value)
    return states.view(blocks, heads, tokens, channels).transpose(1, 2).contiguous(), None
