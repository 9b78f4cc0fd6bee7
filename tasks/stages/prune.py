"""Cuts a parent to the shape of a round: scores from calibration rows, a plan of what stays, the smaller model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tasks.artifacts import write_planned
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import read_config
from tasks.models.devices import pick
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.pruning import causal_lm, classification
from tasks.pruning.cut import Origin, Pruned
from tasks.running.stage import InPath, OutPath

PRUNE: Final[Mapping[str, Callable[..., Pruned]]] = {CLASSIFICATION: classification.prune, CAUSAL_LM: causal_lm.prune}
WRITE_TOKENS: Final[Mapping[str, Callable[..., None]]] = {
    CLASSIFICATION: classification.write_tokens,
    CAUSAL_LM: causal_lm.write_tokens,
}


def run(
    params: Params,
    *,
    round: str,
    parent: InPath,
    tokens: InPath,
    sets: InPath,
    teacher: InPath,
    out: OutPath,
    planned: OutPath,
    student_tokens: OutPath,
) -> dict[str, Any]:
    """Return the shapes before and after and the parameters of the student; of a search, those of each candidate."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = replace(device, precision="fp32")  # scores are read once and ranked: no reason to round them
    origin, config = Origin(parent, tokens, sets, teacher), read_config(parent)
    pruned = PRUNE[params.task](params, round, origin, out, device)
    write_planned(planned, pruned.candidates, pruned.keep)
    if read_config(pruned.model)["vocab_size"] == config["vocab_size"]:  # the tokens stay
        shutil.copytree(tokens, student_tokens, dirs_exist_ok=True)
    else:
        WRITE_TOKENS[params.task](params, origin, pruned.model, student_tokens)
    return {"shape_before": adapter_of(config).shape(config), **pruned.facts, **device.facts()}
