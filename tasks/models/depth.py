"""What a model does without each of some blocks of layers, the layers below them run once for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from tasks.models.architectures import layers_of, without_layers

Found = TypeVar("Found")


def without_each(model: Any, blocks: Sequence[set[int]], run: Callable[[], Found]) -> tuple[Found, list[Found]]:
    """Return what `run` finds with the whole model, and without each contiguous block of layers.

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
    try:
        whole = run()
    finally:
        for handle in handles:
            handle.remove()
    found: list[Found] = []
    for block, last in zip(blocks, below, strict=True):
        with without_layers(model, block | set(range(last))), _giving(layers[last], left[last]):
            found.append(run())
    return whole, found


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
