"""Params out of the records of runs, those of earlier versions among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.file import SCHEMAS
from tasks.params.rounds import trials_of

NO_REPORT: Final = {"report": {"examples": 0}}


def recorded_params(values: object) -> Params:
    """Return params from a record as plain JSON values; ValidationError when they are not of this version of the program.

    A record without `task` is of a classifier: versions before the key knew nothing else. One without `runtime.launcher`
    is of one process, one without its `strategy` is of DDP, and one without `runtime.compile` was not compiled. A
    language model without `accumulate` was trained on whole batches, and a record without `distill.cache` has none. One
    without `prune.depth` chose layers by the harm of doing without them, and one without `prune.merge_heads` merged none.
    One without `promotion.remote` was decided on in its clone alone. One without `trials` trained the candidates of a search in
    one stage; it has those that its rounds tell of. One without `data.stress` was not compared with its teacher on other text,
    and learnt from rows as they are; its report showed no texts.
    """
    if not isinstance(values, Mapping):
        return SCHEMAS[CLASSIFICATION].model_validate(values)
    whole: dict[str, Any] = {"task": CLASSIFICATION, "trials": _recorded_trials(values.get("rounds")), **NO_REPORT, **values}
    added: dict[str, dict[str, Any]] = {
        "runtime": {"launcher": None, "compile": False},
        "prune": {"depth": "harm", "merge_heads": False},
        "distill": {"cache": None},
        "promotion": {"remote": None},
    }
    if whole["task"] == CAUSAL_LM:
        added["teacher"] = {"accumulate": 1}
        added["distill"]["accumulate"] = 1
    else:
        added["prune"]["vocabulary_prior"] = None
        added["data"] = {"stress": None}
        added["distill"]["piece_dropout"] = None
    for name, missing in added.items():
        if isinstance(whole.get(name), Mapping):
            whole[name] = {**missing, **whole[name]}
    if isinstance(whole.get("runtime"), Mapping) and isinstance(whole["runtime"]["launcher"], Mapping):
        whole["runtime"]["launcher"] = {"strategy": "ddp", **whole["runtime"]["launcher"]}
    schema = SCHEMAS[CAUSAL_LM if whole["task"] == CAUSAL_LM else CLASSIFICATION]
    return schema.model_validate_json(json.dumps(whole))


def _recorded_trials(rounds: object) -> dict[str, list[Any]]:
    """Return `trials` as the rounds of a record without it would have them."""
    targets = rounds.items() if isinstance(rounds, Mapping) else ()
    searches = {name: target.get("search") for name, target in targets if isinstance(target, Mapping)}
    return trials_of({name: search for name, search in searches.items() if isinstance(search, Mapping)})
