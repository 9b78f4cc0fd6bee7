"""Params out of the records of runs, those of earlier versions among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.rounds import trials_of


def recorded_params(values: object) -> Params:
    """Return params from a record as plain JSON values; ValidationError when they are not of this version of the program.

    A record without `task` is of a classifier: versions before the key knew nothing else. One without `runtime.launcher`
    is of one process, one without its `strategy` is of DDP, and one without `runtime.compile` was not compiled. A
    language model without `accumulate` was trained on whole batches, and a record without `distill.cache` has none. One
    without `prune.depth` chose layers by the harm of doing without them, and one without `prune.merge_heads` merged none.
    One without `trials` trained the candidates of a search in one stage; it has those that its rounds tell of.
    """
    if not isinstance(values, Mapping):
        return ClassificationParams.model_validate(values)
    schema = CausalLMParams if values.get("task") == CAUSAL_LM else ClassificationParams
    whole: dict[str, Any] = {"task": CLASSIFICATION, "trials": _recorded_trials(values.get("rounds")), **values}
    if isinstance(whole.get("runtime"), Mapping):
        runtime = {"launcher": None, "compile": False, **whole["runtime"]}
        if isinstance(runtime["launcher"], Mapping):
            runtime["launcher"] = {"strategy": "ddp", **runtime["launcher"]}
        whole["runtime"] = runtime
    if isinstance(whole.get("prune"), Mapping):
        whole["prune"] = {"depth": "harm", "merge_heads": False, **whole["prune"]}
    if isinstance(whole.get("distill"), Mapping):
        whole["distill"] = {"cache": None, **whole["distill"]}
    if schema is CausalLMParams:
        for name in ("teacher", "distill"):
            if isinstance(whole.get(name), Mapping):
                whole[name] = {"accumulate": 1, **whole[name]}
    return schema.model_validate_json(json.dumps(whole))


def _recorded_trials(rounds: object) -> dict[str, list[Any]]:
    """Return `trials` as the rounds of a record without it would have them."""
    targets = rounds.items() if isinstance(rounds, Mapping) else ()
    found = {name: target.get("search") for name, target in targets if isinstance(target, Mapping)}
    return trials_of({name: one for name, one in found.items() if isinstance(one, Mapping)})
