"""Trains the teacher on the training set, or takes it as it is (`teacher.epochs: 0`, of language models `train_tokens: 0`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from tasks.errors import Faults, SourceError
from tasks.models.checkpoint import bound_length, refuse_other_tokens
from tasks.models.devices import pick_for_training
from tasks.models.folder import teacher_faults
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.classification import ClassificationParams
from tasks.running.check import wanted_of
from tasks.running.preflight import check_fit
from tasks.running.stage import InPath, OutPath
from tasks.training import causal_lm, classification
from tasks.training.lesson import Job, Texts

TEACH: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {CLASSIFICATION: classification.teach, CAUSAL_LM: causal_lm.teach}


def check(params: Params, base: Path) -> None:
    """Raise a UserError for a teacher or rounds that do not fit: cheaper to hear of before the training than after it."""
    if (base / "tokenizer.json").exists():  # a new one has nothing yet
        faults = Faults()
        faults.add(teacher_faults(base, params.task, wanted_of(params.model_dump())), SourceError)
        faults.refuse()
        pairs = isinstance(params, ClassificationParams) and params.data.columns.text_pair is not None
        refuse_other_tokens(base, pairs)
    check_fit(params, base)


def run(params: Params, *, base: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return the summary of the training, with the device it ran on."""
    device = pick_for_training(params.runtime)
    torch.manual_seed(params.seed)  # what the teacher comes without, such as a classification head, is drawn from it
    summary = TEACH[params.task](params, base, Texts(sets, tokens), Job("teacher", out, device))
    bound_length(out / "model")
    return {**summary, **device.facts()}
