"""One small file a family: where each prunable axis lives in the weights and in the config.

To add a family, write a file with a `FAMILY` and enter it in `FAMILIES`; what can be told from it is below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import SourceError
from tasks.models.architectures import bert, distilbert, gpt2, llama, mpnet, roberta
from tasks.models.architectures.family import Config, Family
from tasks.models.architectures.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

FAMILIES: Final[Mapping[str, Family]] = {
    "bert": bert.FAMILY,
    "distilbert": distilbert.FAMILY,
    "roberta": roberta.FAMILY,
    "mpnet": mpnet.FAMILY,
    "gpt2": gpt2.FAMILY,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), llama.FAMILY),
}


def adapter_of(config: Config) -> Family:
    """Return the family of a model by its config; SourceError naming those that are supported otherwise."""
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise SourceError(
            f"teacher.model: config.json: model_type {model_type!r} is not supported; allowed: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def relation_widths(config: Config) -> set[int]:
    """Return how many channels the queries, and the keys and values, of a layer have."""
    family = adapter_of(config)
    widths = family.widths(config, family.shape(config))
    return {widths.A, widths.K}


def freeze(model: Any, count: int) -> None:
    """Keep the embeddings and the `count` lowest layers as they are: no gradients, and no dropout noise."""
    layout = _layout(model)
    for part in [*map(model.get_submodule, layout.embeddings), *model.get_submodule(layout.layers)[:count]]:
        part.requires_grad_(False)
        stop_dropout(part)


def stop_dropout(module: nn.Module) -> None:
    """Switch the dropout in a module off for good."""
    from torch.nn import Dropout

    for part in module.modules():
        if isinstance(part, Dropout):
            part.p = 0.0


def leave_out_unread(model: Any, device: torch.device) -> None:
    """Make a classifier leave out what its last layer computes and its head does not read, where the family knows how.

    For a CPU and a model that attends plainly. Its logits stay the same to rounding, but its last hidden states do not.
    """
    family = adapter_of(model.config.to_dict())
    if device.type == "cpu" and family.first_token_alone is not None:
        family.first_token_alone(model)


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
    from torch.nn import ModuleList

    above, _, name = _layout(model).layers.rpartition(".")
    parent = model.get_submodule(above)
    layers, config = getattr(parent, name), model.config
    kinds, cached = getattr(config, "layer_types", None), getattr(config, "use_cache", None)
    kept = [number for number in range(len(layers)) if number not in dropped]
    setattr(parent, name, ModuleList(layers[number] for number in kept))
    if kinds:  # stock classes look up how a layer attends by its place, but the room in a cache by the number it had
        config.layer_types, config.use_cache = [kinds[number] for number in kept], False
    try:
        yield
    finally:
        setattr(parent, name, layers)
        if kinds:
            config.layer_types, config.use_cache = kinds, cached


def _layout(model: Any) -> Layout:
    config = model.config.to_dict()
    return adapter_of(config).layout(config)
