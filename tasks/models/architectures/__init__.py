"""One small file a family: where each prunable axis lives in the weights and in the config.

To add a family, write a file with the functions of `bert` and add it to `ADAPTERS`; what can be told from them is below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn

from tasks.errors import SourceError
from tasks.models.architectures import bert, distilbert, gpt2, llama, roberta
from tasks.models.architectures.layout import Layout

ADAPTERS: Final[dict[str, ModuleType]] = {
    "bert": bert,
    "distilbert": distilbert,
    "roberta": roberta,
    "gpt2": gpt2,
    "llama": llama,
    "mistral": llama,
    "qwen2": llama,
    "qwen3": llama,
}


def adapter_of(config: Mapping[str, Any]) -> ModuleType:
    """Return the adapter of a model's config; SourceError naming the supported families otherwise."""
    model_type = str(config.get("model_type"))
    if model_type not in ADAPTERS:
        raise SourceError(
            f"teacher.model: config.json: model_type {model_type!r} is not supported; allowed: {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[model_type]


def relation_widths(config: Mapping[str, Any]) -> set[int]:
    """Return how many channels the queries, and the keys and values, of a layer have."""
    adapter = adapter_of(config)
    heads = adapter.shape(config)["heads"]
    return {adapter.head_size(config) * int(count) for count in (heads, config.get("num_key_value_heads") or heads)}


def freeze(model: Any, count: int) -> None:
    """Keep the embeddings and the `count` lowest layers as they are: no gradients, and no dropout noise."""
    layout = _layout(model)
    for part in [*map(model.get_submodule, layout.embeddings), *model.get_submodule(layout.layers)[:count]]:
        part.requires_grad_(False)
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


def leave_out_unread(model: Any, device: torch.device) -> None:
    """Make a classifier leave out what its last layer computes and its head does not read, where the adapter knows how.

    For a CPU and a model that attends plainly. Its logits stay the same to rounding, but its last hidden states do not.
    """
    adapter = adapter_of(model.config.to_dict())
    if device.type == "cpu" and hasattr(adapter, "first_token_alone"):
        adapter.first_token_alone(model)


def num_layers(model: Any) -> int:
    """Return the number of layers of a model."""
    return len(layers_of(model)[1])


def layers_of(model: Any) -> tuple[str, Any]:
    """Return the name of a model's list of layers, and the list."""
    name = _layout(model).layers
    return name, model.get_submodule(name)


@contextmanager
def without_layers(model: Any, dropped: set[int]) -> Iterator[None]:
    """Make the model skip the layers numbered in `dropped` while the context lasts."""
    above, _, name = _layout(model).layers.rpartition(".")
    parent = model.get_submodule(above)
    layers = getattr(parent, name)
    setattr(parent, name, nn.ModuleList(layer for i, layer in enumerate(layers) if i not in dropped))
    try:
        yield
    finally:
        setattr(parent, name, layers)


def _layout(model: Any) -> Layout:
    config = model.config.to_dict()
    layout: Layout = adapter_of(config).layout(config)
    return layout
