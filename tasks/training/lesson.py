"""What a training is given, whatever its task: a student, what it learns from, and whose training it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.files import digest
from tasks.models.architectures import stop_dropout
from tasks.models.devices import Device
from tasks.params.causal_lm import Training
from tasks.params.classification import Distill, Teacher
from tasks.progress import Progress
from tasks.training.keeper import Keeper
from tasks.training.loop import Course, Schedule, train
from tasks.training.scratch import Scratch, scratch_key


@dataclass(frozen=True)
class Student:
    """A student before its training: the model, and the folder that decides its shape and has its tokenizer."""

    model: Any
    folder: Path


@dataclass(frozen=True)
class Texts:
    """What a model reads: the folders of the prepared sets and of their tokens."""

    sets: Path
    tokens: Path


@dataclass(frozen=True)
class Lesson(Texts):
    """What a student learns from: texts in its own tokens, the folder of what is cached of the teacher, and the teacher's."""

    logits: Path
    teacher: Path


@dataclass(frozen=True)
class Job:
    """Whose training it is (the stage that scratch and progress are named after), where it writes, and where it runs."""

    stage: str
    out: Path
    device: Device

    def scratch(self, inputs: Iterable[Path], **settings: Any) -> Scratch:
        """Return the scratch of the training, whose result depends on these files and settings, on device and code."""
        facts = {"inputs": [digest(path)["sha256"] for path in inputs], **settings}
        key = scratch_key({**facts, "device": self.device.facts(), "torch": torch.__version__})
        with self.device.processes.in_turn():
            return Scratch(self.stage, key)

    def train(self, model: Any, course: Course, keeper: Keeper, tokenizer: Path, tokens: int) -> dict[str, Any]:
        """Train a model in place, write `out` as `Keeper.finish` does, and return its summary; the scratch is gone then."""
        progress = Progress(self.stage, len(course.batches))

        def on_step(step: int, loss: float) -> None:
            progress.update(step, loss=loss)

        train(model, course, self.device, keeper.scratch, keeper.checkpoint, on_step)
        summary = keeper.finish(model, tokenizer, self.out, tokens)
        keeper.scratch.remove()
        return summary


Paced = Teacher | Distill | Training  # the sections that say how a model is trained


def schedule_of(section: Paced, learning_rate: float, seed: int, **more: Any) -> Schedule:
    """Return the schedule of a training with the settings of a section; `more` are further fields of `Schedule`."""
    return Schedule(
        learning_rate=learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        max_gradient_norm=section.max_gradient_norm,
        checkpoints=section.checkpoints,
        seed=seed,
        **more,
    )


def without_dropout(model: Any) -> Any:
    """Return the model with its dropout off for good: soft targets already keep a small student from over-fitting."""
    stop_dropout(model)
    return model
