"""BERT: where each axis lives. Stock BERT needs hidden = heads x head size, so those two axes shrink together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.pruning.criteria import MeanAbsolute, Statistics
from tasks.pruning.shapes import Plan

CONFIG_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}
LAYER: Final = re.compile(r"^bert\.encoder\.layer\.(\d+)\.(.+)$")


def shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size along each axis of a config."""
    return {axis: int(config[key]) for axis, key in CONFIG_KEYS.items()}


def resized(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> dict[str, Any]:
    """Return the config with the sizes of `new_shape`."""
    return {**config, **{key: new_shape[axis] for axis, key in CONFIG_KEYS.items()}}


def count_parameters(config: Mapping[str, Any], new_shape: Mapping[str, int], num_labels: int) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
    V, D, F, L = (new_shape[axis] for axis in ("vocabulary", "hidden", "ffn", "layers"))
    embeddings = (V + int(config["max_position_embeddings"]) + int(config["type_vocab_size"])) * D
    attention = 4 * (D * D + D) + 2 * D
    feed_forward = 2 * D * F + F + D + 2 * D
    head = D * D + D + num_labels * (D + 1)
    non_embedding = 2 * D + L * (attention + feed_forward) + head
    return {"total": embeddings + non_embedding, "non_embedding": non_embedding}


def slice_weights(weights: Mapping[str, Tensor], plan: Plan, head_size: int) -> dict[str, Tensor]:
    """Return the student's weights: the parent's, cut to the kept indices. Nothing is computed, only copied."""
    hidden, pooler = torch.tensor(plan.hidden), torch.tensor(plan.pooler)
    student_layer = {parent: child for child, parent in enumerate(plan.layers)}
    cut: dict[str, Tensor] = {}
    for name, weight in weights.items():
        match = LAYER.match(name)
        if match is None:
            cut[name] = _slice_outer(name, weight, torch.tensor(plan.vocabulary), hidden, pooler)
            continue
        child = student_layer.get(int(match[1]))
        if child is not None:
            channels = _channels(plan.heads[child], head_size)
            part = _slice_layer(match[2], weight, hidden, channels, torch.tensor(plan.ffn[child]))
            cut[f"bert.encoder.layer.{child}.{match[2]}"] = part
    return {name: weight.contiguous().clone() for name, weight in cut.items()}


def _channels(heads: list[int], head_size: int) -> Tensor:
    return torch.tensor([head * head_size + offset for head in heads for offset in range(head_size)])


def _slice_outer(name: str, weight: Tensor, vocabulary: Tensor, hidden: Tensor, pooler: Tensor) -> Tensor:
    if name == "bert.embeddings.word_embeddings.weight":
        return weight[vocabulary][:, hidden]
    if name.startswith("bert.embeddings."):
        return weight[..., hidden]
    if name == "bert.pooler.dense.weight":
        return weight[pooler][:, hidden]
    if name == "bert.pooler.dense.bias":
        return weight[pooler]
    if name == "classifier.weight":
        return weight[:, pooler]
    if name == "classifier.bias":
        return weight
    raise KeyError(f"BERT has no weight {name!r}; the checkpoint is of another architecture")


def _slice_layer(name: str, weight: Tensor, hidden: Tensor, channels: Tensor, neurons: Tensor) -> Tensor:
    module, _, kind = name.rpartition(".")
    if module.startswith("attention.self."):
        return weight[channels][:, hidden] if kind == "weight" else weight[channels]
    if module == "intermediate.dense":
        return weight[neurons][:, hidden] if kind == "weight" else weight[neurons]
    if kind == "weight" and module in ("attention.output.dense", "output.dense"):
        return weight[hidden][:, channels if module.startswith("attention") else neurons]
    return weight[hidden]  # biases of the output products and the layer norms


def num_layers(model: Any) -> int:
    """Return the number of layers of a model."""
    return len(model.bert.encoder.layer)


def freeze(model: Any, count: int) -> None:
    """Keep the embeddings and the `count` lowest layers as they are: no gradients, and no dropout noise."""
    for part in [model.bert.embeddings, *model.bert.encoder.layer[:count]]:
        part.requires_grad_(False)
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


@contextmanager
def without_layers(model: Any, dropped: set[int]) -> Iterator[None]:
    """Make the model skip the layers numbered in `dropped` while the context lasts."""
    layers = model.bert.encoder.layer
    model.bert.encoder.layer = nn.ModuleList(layer for i, layer in enumerate(layers) if i not in dropped)
    try:
        yield
    finally:
        model.bert.encoder.layer = layers


class Recorder:
    """Collects `Statistics` from the forward passes of a model between `__enter__` and `__exit__`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._mask_BT: Tensor | None = None
        self._handles: list[Any] = []
        layers = model.bert.encoder.layer
        self._ffn = [MeanAbsolute() for _ in layers]
        self._attention = [MeanAbsolute() for _ in layers]
        self._hidden = [MeanAbsolute() for _ in range(2 * len(layers) + 1)]
        self._pooler = MeanAbsolute()

    def __enter__(self) -> Recorder:
        norms = [self._model.bert.embeddings.LayerNorm]
        for i, layer in enumerate(self._model.bert.encoder.layer):
            self._hook_input(layer.output.dense, self._ffn[i])
            self._hook_input(layer.attention.output.dense, self._attention[i])
            norms += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
        for norm, accumulator in zip(norms, self._hidden, strict=True):
            self._hook_output(norm, accumulator)
        handle = self._model.bert.pooler.register_forward_hook(
            lambda _module, _inputs, output: self._pooler.add(output[:, None, :], torch.ones(len(output), 1))
        )
        self._handles.append(handle)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def batch(self, mask_BT: Tensor) -> None:
        """Tell which tokens of the coming forward pass count."""
        self._mask_BT = mask_BT

    def _hook_input(self, module: nn.Module, accumulator: MeanAbsolute) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            assert self._mask_BT is not None, "call batch() before the forward pass"
            accumulator.add(inputs[0], self._mask_BT)

        self._handles.append(module.register_forward_hook(hook))

    def _hook_output(self, module: nn.Module, accumulator: MeanAbsolute) -> None:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert self._mask_BT is not None, "call batch() before the forward pass"
            accumulator.add(output, self._mask_BT)

        self._handles.append(module.register_forward_hook(hook))

    def statistics(self) -> Statistics:
        """Return what was collected."""
        return Statistics(
            ffn_LF=torch.stack([a.root() for a in self._ffn]),
            attention_LD=torch.stack([a.root() for a in self._attention]),
            hidden_SD=torch.stack([a.root() for a in self._hidden]),
            # a pooler channel matters as far as the classifier listens to it
            pooler_D=self._pooler.root() * self._model.classifier.weight.detach().float().norm(dim=0).cpu(),
        )
