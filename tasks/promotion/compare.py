"""Two registered versions on the same rows."""

from __future__ import annotations

from typing import Any, Final

from tasks.errors import UserError
from tasks.gates.classification import gather
from tasks.gates.paired import Pairs, paired_bootstrap
from tasks.gates.rules import Rule
from tasks.params.base import Params
from tasks.params.classification import ClassificationParams
from tasks.params.parts import refusal
from tasks.promotion.decisions import VersionRecord
from tasks.promotion.versions import read_evaluation
from tasks.registry.reading import Reader

CONFIDENCE: Final = 0.975  # one-sided at each end: 95 % between them


def compare_versions(tracker: Reader, params: Params, first: VersionRecord, second: VersionRecord) -> list[dict[str, Any]]:
    """Return a row for each set and slice: accuracies `a` and `b`, their difference with a 95 % interval, rows that changed.

    A set on which the two cannot be paired has one row with a `doubt`, a sentence that says why.
    """
    if not isinstance(params, ClassificationParams):
        raise UserError(refusal(params.task, "compare"))
    sets = ["test", *params.data.further_sets, "validation"]
    runs = {"student": second["run_id"], "champion": first["run_id"], "teacher": second["teacher_run_id"]}
    read = {who: read_evaluation(tracker, run, sets).model(who) for who, run in runs.items()}
    models = {who: model for who, model in read.items() if model is not None}
    rows: list[dict[str, Any]] = []
    for name in sets:
        known = models["student"].sets.get(name, {}).get("slices", {}) if "student" in models else {}
        slices = ["overall", *sorted(known.keys() - {"overall"})]
        rules = [Rule("accuracy", name, part, "champion", "max_drop", 0.0, "warn", confidence=CONFIDENCE) for part in slices]
        evidence, pairs, _ = gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
        for part in slices:
            count = pairs["champion", name, part]
            if isinstance(count, str):
                rows.append({"set": name, "slice": part, "doubt": count})
                break
            assert isinstance(count, Pairs)  # accuracies are counted row by row
            if count.rows:
                a, b = (evidence[who, "accuracy", name, part].value for who in ("champion", "student"))
                change = _change(count, params.seed)
                rows.append({"set": name, "slice": part, "doubt": None, "a": a, "b": b, **change})
    return rows


def _change(count: Pairs, seed: int) -> dict[str, Any]:
    measured = paired_bootstrap(count, 0.0, CONFIDENCE, 10_000, seed)
    counted = {"rows": count.rows, "lost": count.lost, "gained": count.gained, "flipped": count.flipped}
    return {**counted, "difference": measured.value, "low": measured.low, "high": measured.high}
