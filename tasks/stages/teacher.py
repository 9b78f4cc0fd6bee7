"""Trains the teacher on the training set, or takes it as it is (`teacher.epochs: 0`, of language models `train_tokens: 0`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from tasks.models.checkpoint import read_config
from tasks.models.devices import pick_for_training
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.running.preflight import check_causal_shapes, check_shapes
from tasks.running.stage import InPath, OutPath
from tasks.training import causal_lm, classification
from tasks.training.lesson import Job, Texts

CHECK: Final[Mapping[str, Callable[..., Any]]] = {CLASSIFICATION: check_shapes, CAUSAL_LM: check_causal_shapes}
TEACH: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {CLASSIFICATION: classification.teach, CAUSAL_LM: causal_lm.teach}


def run(params: Params, *, base: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return the summary of the training, with the device it ran on."""
    CHECK[params.task](params, read_config(base))  # what cannot work is cheaper to hear of before the training
    device = pick_for_training(params.runtime)
    torch.manual_seed(params.seed)  # what the teacher comes without, such as a classification head, is drawn from it
    summary = TEACH[params.task](params, base, Texts(sets, tokens), Job("teacher", out, device))
    return {**summary, **device.facts()}
