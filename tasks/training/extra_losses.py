"""Extra losses of a distillation, beside the one on logits: what the teacher's layers hold, and how its tokens relate.

What passes inside a model: the states of its layers row by row, and the queries, keys and values of its last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.data.tokens import TokenSet, rows_of
from tasks.data.vocabulary import ids_at_teacher
from tasks.files import read_json
from tasks.models.architectures import adapter_of, num_layers
from tasks.models.architectures.layout import FUSED
from tasks.models.checkpoint import load_classifier, read_config
from tasks.models.devices import Device
from tasks.models.predict import predict_batches
from tasks.params.classification import Distill
from tasks.training.hidden import (
    HIDDEN_LOSSES,
    KINDS,
    Projection,
    fit_projection,
    fixed_weight,
    layer_pairs,
    relation_kl,
    row_states,
)
from tasks.training.teacher_cache import States

Rows = NDArray[np.int64]
SAMPLE_ROWS: Final = 2048  # on which a projection is fitted and the teacher's channels are standardised
SAMPLE_BATCH_ROWS: Final = 64


@dataclass(frozen=True)
class Batch:
    """A batch as the student saw it."""

    rows: Rows
    ids_BT: Tensor
    mask_BT: Tensor
    hidden_states: Sequence[Tensor]


class Extra(Protocol):
    """A loss on more than the logits."""

    weight: float | None  # None: the ratio of the two losses
    until_share: float

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of each row, shape (B,)."""


@dataclass
class HiddenMatch:
    """The student's row states, projected, against the cached standardised states of the teacher."""

    weight: float | None
    until_share: float
    name: str
    layers: list[int]  # of the student, counted from 1
    reads: str
    states: States
    mean_LKE: Tensor
    deviation_LKE: Tensor
    projection: Projection

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of each row, shape (B,); see `HIDDEN_LOSSES`."""
        found = [row_states(batch.hidden_states[layer], batch.mask_BT, self.reads) for layer in self.layers]
        wanted = torch.from_numpy(self.states[batch.rows]).to(self.mean_LKE.device)
        wanted_BLKE = (wanted - self.mean_LKE) / self.deviation_LKE
        return HIDDEN_LOSSES[self.name](self.projection(torch.stack(found, dim=1)), wanted_BLKE)


def hidden_match(
    student: Any,
    data: TokenSet,
    states: States,
    layers: list[int],
    device: Device,
    *,
    name: str,
    weight: float | None,
    until_share: float,
) -> HiddenMatch:
    """Return the loss with its projection fitted on rows spread over the data; the student's first bits are its own."""
    rows = np.unique(np.linspace(0, len(data) - 1, min(SAMPLE_ROWS, len(data))).astype(np.int64))
    sample = rows_of(data, rows)
    found = np.empty((len(rows), len(layers), len(KINDS), student.config.hidden_size), dtype=np.float32)
    plain = Device(device.device, "fp32", device.threads)
    predict_states(student, sample, layers, SAMPLE_BATCH_ROWS, plain, found)
    wanted = torch.from_numpy(states[rows])
    mean_LKE, deviation_LKE = wanted.mean(dim=0), wanted.std(dim=0, correction=0).clamp(min=1e-3)
    projection = fit_projection(torch.from_numpy(found), (wanted - mean_LKE) / deviation_LKE).to(device.device)
    return HiddenMatch(
        weight,
        until_share,
        name,
        layers,
        reads(student),
        states,
        mean_LKE.to(device.device),
        deviation_LKE.to(device.device),
        projection,
    )


@dataclass
class RelationMatch:
    """Query, key and value relations of the student's last layer against those of the teacher's, which runs beside it.

    The teacher reads the student's own pieces, all of which it knows: only so have both the same tokens.
    """

    weight: float | None
    until_share: float
    heads: int
    student: LastRelations
    teacher: Any
    teacher_ids: Tensor  # the teacher's id of each id of the student's
    device: Device
    heard: LastRelations = field(init=False)

    def __post_init__(self) -> None:
        """Listen to the teacher."""
        self.heard = LastRelations(self.teacher)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the three `relation_kl` of each row, shape (B,), nats."""
        with torch.no_grad(), self.device.autocast():
            self.teacher(input_ids=self.teacher_ids[batch.ids_BT], attention_mask=batch.mask_BT)
        pairs = zip(self.student.seen, self.heard.seen, strict=True)
        return torch.stack([relation_kl(s, t, batch.mask_BT, self.heads) for s, t in pairs]).mean(dim=0)


def relation_match(
    student: Any,
    tokenizer: Path,
    teacher: Path,
    device: Device,
    *,
    weight: float | None,
    until_share: float,
    heads: int,
) -> RelationMatch:
    """Return the loss with the teacher of a folder beside the student, whose tokenizer lies in another."""
    model = load_classifier(teacher).requires_grad_(False).to(device.device)
    ids = torch.from_numpy(ids_at_teacher(*(read_json(f / "tokenizer.json") for f in (tokenizer, teacher))))
    return RelationMatch(weight, until_share, heads, LastRelations(student), model, ids.to(device.device), device)


class Extras:
    """The extra losses of a training, each as long as its share of the steps lasts."""

    def __init__(self, losses: Sequence[Extra]) -> None:
        self._losses, self.active = losses, list(losses)
        projections = [one.projection for one in losses if isinstance(one, HiddenMatch)]
        #: what trains beside the student and is thrown away
        self.module = nn.ModuleList(projections) if projections else None

    def begin(self, share: float) -> None:
        """Hear which share of the steps is done."""
        self.active = [one for one in self._losses if share < one.until_share]


def make_extras(
    section: Distill,
    student: Any,
    data: TokenSet,
    frames: Mapping[str, pd.DataFrame],
    folders: Mapping[str, Path],
    device: Device,
) -> Extras:
    """Return the extra losses of a section; `folders` are the `logits`, the `teacher`, and the student's `tokenizer`."""
    losses: list[Extra] = []
    if section.hidden is not None:
        config = read_config(folders["teacher"])
        depth = adapter_of(config).shape(config)["layers"]
        pairs = layer_pairs(num_layers(student), depth, section.hidden.layers)
        states = States(folders["logits"], frames, [theirs for _, theirs in pairs])
        losses.append(
            hidden_match(
                student,
                data,
                states,
                [ours for ours, _ in pairs],
                device,
                name=section.hidden.loss,
                weight=fixed_weight(section.hidden.weight),
                until_share=section.hidden.until_share,
            )
        )
    if section.relations is not None:
        losses.append(
            relation_match(
                student,
                folders["tokenizer"],
                folders["teacher"],
                device,
                heads=section.relations.heads,
                weight=fixed_weight(section.relations.weight),
                until_share=section.relations.until_share,
            )
        )
    return Extras(losses)


def reads(model: Any) -> str:
    """Return which token the classifier reads: the `first` or the `last` of a row."""
    return str(adapter_of(model.config.to_dict()).READS)


def predict_states(
    model: Any,
    tokens: TokenSet,
    layers: Sequence[int],
    batch_rows: int,
    device: Device,
    into: NDArray[Any],
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return float32 logits (rows, classes), and write the states of the layers `into` (rows, layers, kinds, channels).

    Layers are counted from 1; rows are in their order. Both come from one pass over the rows.
    """
    logits = np.zeros((len(tokens), model.config.num_labels), dtype=np.float32)
    batches = predict_batches(model, tokens, batch_rows, device, on_batch, output_hidden_states=True)
    for rows, mask_BT, outputs in batches:
        states = [row_states(outputs.hidden_states[layer], mask_BT, reads(model)) for layer in layers]
        into[rows] = torch.stack(states, dim=1).cpu().numpy()
        logits[rows] = outputs.logits.float().cpu().numpy()
    return logits


class LastRelations:
    """Listens to the last layer of a model; `seen` holds query, key and value of its latest forward pass, (B, T, X)."""

    def __init__(self, model: Any) -> None:
        self._modules: list[nn.Module] = adapter_of(model.config.to_dict()).relations(model)
        self._outputs: dict[int, Tensor] = {}
        for number, module in enumerate(self._modules):
            module.register_forward_hook(self._listener(number))

    def _listener(self, number: int) -> Callable[..., None]:
        def listen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._outputs[number] = output

        return listen

    @property
    def seen(self) -> list[Tensor]:
        """Query, key and value."""
        if len(self._modules) == 1:
            return list(self._outputs[0].chunk(FUSED, dim=-1))
        return [self._outputs[number] for number in range(len(self._modules))]
