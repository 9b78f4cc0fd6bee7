"""Which layers to drop, and what a model does without them: the layers below them run once for all.

They are a contiguous block, because scattered "least important" layers do worse after retraining. Source: arXiv:2408.11796,
section 4 (layers 16-31 of 32 beat the 16 least important ones).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tasks.models.architectures import layers_of, without_layers

Result = TypeVar("Result")


def without_each(model: Any, blocks: Sequence[set[int]], run: Callable[[], Result]) -> tuple[Result, list[Result]]:
    """Return what `run` does with the whole model, and without each contiguous block of layers.

    `run` passes the same batch through the model once. No block holds the first layer. What leaves the layer below a block is
    remembered from the whole model, so a block costs the layers above it: for blocks that start everywhere half of all.
    """
    _, layers = layers_of(model)
    below = [min(block) - 1 for block in blocks]
    assert min(below, default=0) >= 0, "the first layer reads the embeddings and stays"
    left: dict[int, Any] = {}
    handles = [
        layers[number].register_forward_hook(lambda _module, _inputs, output, n=number: left.__setitem__(n, output))
        for number in set(below)
    ]
    with listening(handles):
        whole = run()
    results: list[Result] = []
    for block, last in zip(blocks, below, strict=True):
        with without_layers(model, block | set(range(last))), _giving(layers[last], left[last]):
            results.append(run())
    return whole, results


@contextmanager
def listening(handles: Iterable[Any]) -> Iterator[None]:
    """Remove the handles of hooks when the context ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _giving(layer: nn.Module, output: Any) -> Iterator[None]:
    """Make a layer give `output` whatever it is asked, while the context lasts; its own attributes stay in sight."""
    own = vars(layer).get("forward")  # such as Accelerate's hooks put there
    layer.forward = lambda *_args, **_more: output
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own


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
