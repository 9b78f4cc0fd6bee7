"""Head merging: what the most important of the heads that go did is added to the least important ones that stay.

Source: arXiv:2407.14679, section 2.3: of L heads ordered by importance, K of which stay, head i becomes
head i + (head i - head 2K - i + 1) for i in [2K - L + 1, K]. The paper's range starts one earlier, where there is no head to add.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.models.architectures.layout import FUSED, Axes, Layout

Pairs = list[list[int]]  # a head that stays, and one that goes


def merges(scores_H: Tensor, count: int, groups: int = 1) -> Pairs:
    """Return the pairs of one layer's heads, each group of heads by itself, in the order of the heads that stay.

    Ties go to the lower number, as in `keep_best`. Raises ValueError when less than half of the heads stay: more heads would be
    added than there are to add them to.
    """
    size, kept = len(scores_H) // groups, count // groups
    if 2 * kept < size:
        raise ValueError(f"{count} of {len(scores_H)} heads stay, and merging needs at least half")
    order = torch.sort(scores_H.reshape(groups, size), dim=1, descending=True, stable=True).indices
    order = order + torch.arange(groups).unsqueeze(1) * size
    ranks = range(2 * kept - size, kept)  # counted from 0
    return sorted([int(row[rank]), int(row[2 * kept - rank - 1])] for row in order for rank in ranks)


def with_merged_heads(weight: Tensor, axes: Axes, layout: Layout, pairs: Sequence[Sequence[int]], head_size: int) -> Tensor:
    """Return a weight of a layer with its heads merged, where it makes queries, keys or values; any other as it is.

    Where heads share keys and values, these are no heads, and the queries alone are merged.
    """
    fused = any("qkv" in others for others in layout.inside.values())
    if not pairs or not ("qkv" in axes if fused else axes[0] == "heads"):
        return weight
    dimension = axes.index("qkv") if fused else 0
    parts = weight.chunk(FUSED, dim=dimension) if fused else (weight,)
    return torch.cat([_added(part, dimension, pairs, head_size) for part in parts], dim=dimension)


def _added(part: Tensor, dimension: int, pairs: Sequence[Sequence[int]], head_size: int) -> Tensor:
    old = part.movedim(dimension, 0).unflatten(0, (-1, head_size))
    new = old.clone()
    for stays, goes in pairs:
        new[stays] = old[stays] + (old[stays] - old[goes])
    return new.flatten(0, 1).movedim(0, dimension)
