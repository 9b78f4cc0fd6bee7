"""What is measured, beside which teacher, and how: values for both tasks (`tasks.params.measures` makes the settings)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts import WEIGHTS, Quality, SetQuality, UnlabelledQuality
from tasks.files import file_sha256
from tasks.measuring.quality import Draws


@dataclass(frozen=True)
class Subject:
    """A model that is measured: its round, the model itself, and the folders of it, its exports, its tokens and the sets.

    `exported` is None of a model that was trained for comparison only.
    """

    round: str
    model: Any
    folder: Path
    exported: Path | None
    tokens: Path
    sets: Path


@dataclass(frozen=True)
class Teacher:
    """The folders of the teacher, its exports and its evaluation; without the last the subject is the teacher itself."""

    folder: Path
    exported: Path | None
    evaluated: Path | None


@dataclass(frozen=True)
class Timing:
    """How latency is taken: rows of a batch, tokens of a row, and how often it is repeated."""

    batches: Sequence[int]
    tokens: int
    repeats: int


@dataclass(frozen=True)
class RowSettings:
    """How a classifier is measured: on which sets, with labels and without, in which slices; `labels` are class -> name."""

    sets: Sequence[str]
    unlabelled: Sequence[str]
    labels: Mapping[int, str]
    max_tokens: int
    rare_share: float
    bins: int
    draws: Draws
    timing: Timing


@dataclass(frozen=True)
class BlockSettings:
    """How a language model is measured: on which sets, so many blocks at once, and how greedy samples are drawn."""

    sets: Sequence[str]
    batch_blocks: int
    prompts: int
    prompt_tokens: int
    new_tokens: int
    draws: Draws
    timing: Timing


def quality_of(
    subject: Subject, confidence: float, sets: dict[str, SetQuality], unlabelled: dict[str, UnlabelledQuality] | None = None
) -> Quality:
    """Return the content of quality.json."""
    sha256 = file_sha256(subject.folder / WEIGHTS)
    quality: Quality = {"round": subject.round, "model_sha256": sha256, "confidence": confidence, "sets": sets}
    if unlabelled:
        quality["unlabelled"] = unlabelled
    return quality
