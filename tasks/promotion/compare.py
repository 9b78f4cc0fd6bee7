"""Two registered versions on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.errors import UserError
from tasks.gates.classification import gather
from tasks.gates.paired import Pairs, paired_bootstrap
from tasks.gates.rules import Rule
from tasks.params.base import Params
from tasks.params.classification import ClassificationParams
from tasks.params.parts import refusal
from tasks.promotion.gate import read_model
from tasks.registry.tracking import Tracker

CONFIDENCE: Final = 0.975  # one-sided at each end: 95 % between them


def compare_versions(
    tracker: Tracker, params: Params, first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for each set and slice: accuracies `a` and `b`, their difference with a 95 % interval, rows that changed.

    A set on which the two cannot be paired has one row with a `doubt`, a sentence that says why.
    """
    if not isinstance(params, ClassificationParams):
        raise UserError(refusal(params.task, "compare"))
    sets = ["test", *params.data.further_sets, "validation"]
    runs = {"student": second["run_id"], "champion": first["run_id"], "teacher": second["teacher_run_id"]}
    models = {
        who: model for who, run in runs.items() if (model := read_model(tracker, who, run, set(sets))) is not None
    }
    found: list[dict[str, Any]] = []
    for name in sets:
        known = models["student"].sets.get(name, {}).get("slices", {}) if "student" in models else {}
        names = ["overall", *sorted(one for one in known if one != "overall")]
        rules = [
            Rule("accuracy", name, one, "champion", "max_drop", 0.0, "warn", confidence=CONFIDENCE) for one in names
        ]
        evidence, pairs, _ = gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
        for one in names:
            count = pairs["champion", name, one]
            if isinstance(count, str):
                found.append({"set": name, "slice": one, "doubt": count})
                break
            assert isinstance(count, Pairs)  # accuracies are counted row by row
            if count.rows:
                mine, theirs = (evidence[who, "accuracy", name, one].value for who in ("student", "champion"))
                found.append(
                    {"set": name, "slice": one, "doubt": None, "a": theirs, "b": mine, **_change(count, params.seed)}
                )
    return found


def _change(count: Pairs, seed: int) -> dict[str, Any]:
    told = paired_bootstrap(count, 0.0, CONFIDENCE, 10_000, seed)
    return {
        "rows": count.rows,
        "lost": count.lost,
        "gained": count.gained,
        "flipped": count.flipped,
        "difference": told.value,
        "low": told.low,
        "high": told.high,
    }
