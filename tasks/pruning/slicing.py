"""Cuts the weights of a parent to what a plan keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tasks.models.architectures.layout import FUSED, Axes, Layout
from tasks.pruning.merging import with_merged_heads
from tasks.pruning.shapes import Plan


def slice_weights(weights: Mapping[str, Tensor], layout: Layout, plan: Plan, head_size: int) -> dict[str, Tensor]:
    """Return the student's weights: the parent's, cut to the kept indices. But for merged heads they are copies."""
    student_layer = {parent: child for child, parent in enumerate(plan.layers)}
    cut: dict[str, Tensor] = {}
    for name, weight in weights.items():
        layer, axes = layout.place(name)
        if layer is None:
            cut[name] = _cut(weight, axes, _kept(plan, None, head_size))
        elif layer in student_layer:
            child = student_layer[layer]
            if plan.merged:
                weight = with_merged_heads(weight, axes, layout, plan.merged[child], head_size)
            cut[layout.renumbered(name, child)] = _cut(weight, axes, _kept(plan, child, head_size))
    return {name: weight.contiguous().clone() for name, weight in cut.items()}


def _kept(plan: Plan, child: int | None, head_size: int) -> dict[str, Tensor]:
    """Return the kept indices along each dimension, inside the student's layer `child` or outside the layers."""
    kept = {"hidden": plan.hidden, "vocabulary": plan.vocabulary, "pooler": plan.pooler}
    if child is None:
        kept["each_head"] = plan.heads[0]  # where a family has such a weight, all layers keep the same heads
    else:
        kept["ffn"] = plan.ffn[child]
        kept["heads"] = [head * head_size + offset for head in plan.heads[child] for offset in range(head_size)]
    return {axis: torch.tensor(indices, dtype=torch.int64) for axis, indices in kept.items()}


def _cut(weight: Tensor, axes: Axes, kept: Mapping[str, Tensor]) -> Tensor:
    for dimension, axis in enumerate(axes):
        if axis == "qkv":
            blocks = weight.chunk(FUSED, dim=dimension)
            weight = torch.cat([block.index_select(dimension, kept["heads"]) for block in blocks], dim=dimension)
        elif axis is not None:
            weight = weight.index_select(dimension, kept[axis])
    return weight
