"""Extra losses of a distillation, beside the one on logits: what the teacher's layers hold, and how its tokens relate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from tasks.params.classification import Distill, Hidden, Relations
from tasks.training.hidden import KINDS, fit_match, fixed_weight, layer_pairs, relation_kl, row_states
from tasks.training.lesson import Lesson, Student
from tasks.training.teacher_cache import States, predict_states, reads

Rows = NDArray[np.int64]
SAMPLE_ROWS: Final = 2048  # on which a projection is fitted and the teacher's channels are standardised
SAMPLE_BATCH_ROWS: Final = 64


@dataclass(frozen=True)
class Batch:
    """A batch as the student saw it; `inputs` are the ids, the mask and, where it knows them, the types of its tokens (B, T)."""

    rows: Rows
    inputs: Mapping[str, Tensor]
    hidden_states: Sequence[Tensor]


class Extra(Protocol):
    """A loss on more than the logits."""

    weight: float | None  # None: the ratio of the two losses
    until_share: float

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of each row, shape (B,)."""


class HiddenMatch:
    """The student's row states against those that are cached of the teacher."""

    def __init__(
        self, student: Any, tokens: TokenSet, layers: list[int], states: States, device: Device, section: Hidden
    ) -> None:
        """Fit the projection on rows spread over the `tokens`; the student's first bits are its own.

        `layers` are those of the student, counted from 1, and `states` those of the teacher's that go with them.
        """
        self.weight, self.until_share = fixed_weight(section.weight), section.until_share
        self._layers, self._states, self._reads = layers, states, reads(student)
        rows = np.unique(np.linspace(0, len(tokens) - 1, min(SAMPLE_ROWS, len(tokens))).astype(np.int64))
        own = np.empty((len(rows), len(layers), len(KINDS), student.config.hidden_size), dtype=np.float32)
        precise = replace(device, precision="fp32")
        predict_states(student, rows_of(tokens, rows), layers, SAMPLE_BATCH_ROWS, precise, own)
        self.match = fit_match(section.loss, torch.from_numpy(own), torch.from_numpy(states[rows]), device.device)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of each row, shape (B,); see `HIDDEN_LOSSES`."""
        own = [row_states(batch.hidden_states[layer], batch.inputs["attention_mask"], self._reads) for layer in self._layers]
        cached_BLKE = torch.from_numpy(self._states[batch.rows]).to(self.match.mean_LKE.device)
        return self.match(torch.stack(own, dim=1), cached_BLKE)


class RelationMatch:
    """Query, key and value relations of the student's last layer against those of the teacher's, which runs beside it.

    The teacher reads the student's own pieces, all of which it knows: only so have both the same tokens.
    """

    def __init__(self, student: Student, teacher: Path, device: Device, section: Relations) -> None:
        """Listen to the student, and to the teacher of a folder."""
        self.weight, self.until_share = fixed_weight(section.weight), section.until_share
        self._heads, self._device = section.heads, device
        self._teacher = load_classifier(teacher).requires_grad_(False).to(device.device)
        ids = ids_at_teacher(*(read_json(folder / "tokenizer.json") for folder in (student.folder, teacher)))
        self._teacher_ids = torch.from_numpy(ids).to(device.device)  # of each id of the student's
        self._both = LastRelations(student.model), LastRelations(self._teacher)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the three `relation_kl` of each row, shape (B,), nats."""
        with torch.no_grad(), self._device.autocast():
            self._teacher(**{**batch.inputs, "input_ids": self._teacher_ids[batch.inputs["input_ids"]]})
        pairs = zip(*(relations.seen for relations in self._both), strict=True)
        return torch.stack([relation_kl(s, t, batch.inputs["attention_mask"], self._heads) for s, t in pairs]).mean(dim=0)


class Extras:
    """The extra losses of a training, each as long as its share of the steps lasts."""

    def __init__(self, losses: Sequence[Extra]) -> None:
        self._losses, self.active = losses, list(losses)
        projections = [extra.match.projection for extra in losses if isinstance(extra, HiddenMatch)]
        #: what trains beside the student and is thrown away
        self.module = nn.ModuleList(projections) if projections else None

    def begin(self, share: float) -> None:
        """Hear which share of the steps is done."""
        self.active = [extra for extra in self._losses if share < extra.until_share]


def make_extras(
    section: Distill, student: Student, tokens: TokenSet, frames: Mapping[str, pd.DataFrame], lesson: Lesson, device: Device
) -> Extras:
    """Return the extra losses of a section; `tokens` are those of all rows, `frames` their sets."""
    losses: list[Extra] = []
    if section.hidden is not None:
        config = read_config(lesson.teacher)
        depth = adapter_of(config).shape(config)["layers"]
        pairs = layer_pairs(num_layers(student.model), depth, section.hidden.layers)
        own, teachers = ([pair[side] for pair in pairs] for side in (0, 1))
        states = States(lesson.logits, frames, teachers)
        losses.append(HiddenMatch(student.model, tokens, own, states, device, section.hidden))
    if section.relations is not None:
        losses.append(RelationMatch(student, lesson.teacher, device, section.relations))
    return Extras(losses)


class LastRelations:
    """Listens to the last layer of a model; `seen` holds query, key and value of its latest forward pass, (B, T, X)."""

    def __init__(self, model: Any) -> None:
        self._outputs: dict[int, Tensor] = {}
        self._modules: list[nn.Module] = adapter_of(model.config.to_dict()).relations(model)
        for number, module in enumerate(self._modules):
            module.register_forward_hook(lambda _m, _i, output, n=number: self._outputs.__setitem__(n, output))

    @property
    def seen(self) -> list[Tensor]:
        """Query, key and value."""
        if len(self._modules) == 1:
            return list(self._outputs[0].chunk(FUSED, dim=-1))
        return [self._outputs[number] for number in range(len(self._modules))]
