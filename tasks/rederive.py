"""Derives again what follows from stored files: pruned weights from plan and parent, metrics from predictions, verdicts.

Works on a view of the run: a folder in which every file of the lineage lies under its own path with its verified bytes.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from tasks.data.frames import rows_sha256
from tasks.evaluation.int8 import INT8_COLUMN, measure_int8
from tasks.evaluation.quality import measure_slices
from tasks.lineage.chain import Receipt
from tasks.lineage.checks import Check, compare, failed, unknown, whole
from tasks.lineage.files import file_sha256, read_json
from tasks.models.better import BETTER
from tasks.params import AnyParams
from tasks.params_recorded import recorded_params

TOLERANCE: Final = 2e-6  # reports round to six decimals, and the last bit may differ between processors
BROKEN: Final = (KeyError, ValueError, TypeError, IndexError, OSError, RuntimeError, AssertionError)


def make_view(places: Mapping[str, Path | None], into: Path) -> None:
    """Make `into` hold, under its own path, every file of which verified bytes were found."""
    for path, place in places.items():
        if place is not None:
            link = into / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place.absolute())


def derived(
    name: str, subject: str, needs: Mapping[str, Path | None], sentence: str, derive: Callable[[], list[Check]]
) -> list[Check]:
    """Return what `derive` finds wrong, UNKNOWN when a file it needs has no verified bytes, FAIL when it cannot be done."""
    missing = [path for path, place in needs.items() if place is None]
    if missing:
        return [unknown(name, subject, f"needs {missing[0]}, whose bytes were not found whole")]
    try:
        return whole(name, subject, derive(), sentence)
    except BROKEN as error:
        return [
            failed(
                name, subject, "files from which it follows", f"{type(error).__name__}: {error}", "cannot be derived"
            )
        ]


def pruned(view: Path, name: str, parent: str) -> list[Check]:
    """Return where a round's pruned model, or one of its candidates, does not follow bit for bit from its parent and its plan."""
    place = f"artifacts/rounds/{name}/pruned"
    listed = read_json(view / place / "plan.json").get("candidates")
    if listed is None:
        return _pruned(view, name, place, parent)
    found: list[Check] = []
    for one in listed:
        folder = f"{place}/candidates/{one['candidate']}"
        record = read_json(view / folder / "plan.json")
        for key in ("shape_after", "model_sha256"):
            found += compare(
                "pruning", f"{folder}: {key}", record[key], one[key], "the list tells of another candidate"
            )
        found += _pruned(view, name, folder, parent)
    return found


def _pruned(view: Path, name: str, folder: str, parent: str) -> list[Check]:
    from safetensors.torch import load_file

    from tasks.models.checkpoint import save_classifier
    from tasks.models.masking import apply_masks
    from tasks.prune import MASKS_FILE, student_from_plan, write_tokenizer
    from tasks.pruning.shapes import Plan

    place, source = view / folder, view / f"artifacts/rounds/{parent}/trained/model"
    record = read_json(place / "plan.json")
    plan = Plan.from_json(record["keep"])
    found = compare("pruning", f"{name}: plan.json: parent_sha256", file_sha256(source / "model.safetensors"),
                    record["parent_sha256"], "the plan was made for another parent")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=view) as scratch:
        made = Path(scratch)
        student = student_from_plan(source, plan)
        if "masks" in record:
            masks = place / MASKS_FILE
            found += compare("pruning", f"{name}: masks_sha256", file_sha256(masks), record["masks"]["masks_sha256"],
                             "the plan was made with other masks")  # fmt: skip
            apply_masks(student, {key: mask.bool() for key, mask in load_file(masks).items()})
        save_classifier(student, source, made)
        write_tokenizer(source, plan, made)
        return found + same_model(made, place / "model", f"{folder}/model")


def same_model(made: Path, stored: Path, subject: str) -> list[Check]:
    """Return the files of a model folder made again that the stored one has not with the same bytes."""
    found: list[Check] = []
    for path in sorted(made.iterdir()):
        there = stored / path.name
        if path.name == "config.json":  # it also names the version of the library that wrote it
            ours, theirs = (_config(one) for one in (path, there))
        else:
            ours, theirs = file_sha256(path), file_sha256(there) if there.exists() else "no such file"
        found += compare(
            "pruning", f"{subject}/{path.name}", ours, theirs, "does not follow from the parent and the plan"
        )
    return found


def _config(path: Path) -> str:
    content = {key: value for key, value in read_json(path).items() if key != "transformers_version"}
    return json.dumps(content, sort_keys=True)


def best_checkpoint(view: Path, name: str) -> list[Check]:
    """Return where the trained model is not the checkpoint that its summary calls the best."""
    folder = view / f"artifacts/rounds/{name}/trained"
    summary = read_json(folder / "summary.json")
    weights = file_sha256(folder / "model" / "model.safetensors")
    found = compare(
        "checkpoints", f"{name}: model_sha256", weights, summary["model_sha256"], "the summary is of another model"
    )
    for one in summary["checkpoints"]:
        here = file_sha256(folder / "checkpoints" / one["name"] / "model.safetensors")
        found += compare(
            "checkpoints", f"{name}: {one['name']}", one["sha256"], here, "the summary is of another checkpoint"
        )
        if one["name"] == summary["best_checkpoint"]:
            found += compare(
                "checkpoints", f"{name}: best", one["sha256"], weights, "the model is not its best checkpoint"
            )
    if summary["checkpoints"]:
        [metric] = [one for one in BETTER if f"best_{one}" in summary]
        best = min(BETTER[metric] * one[metric] for one in summary["checkpoints"]) * BETTER[metric]
        [chosen] = [one[metric] for one in summary["checkpoints"] if one["name"] == summary["best_checkpoint"]]
        for told in (summary[f"best_{metric}"], chosen):
            found += compare("checkpoints", f"{name}: best", best, told, "is not the best one")
    return found


def measured(view: Path, params: Mapping[str, Any], evaluated: str, who: str) -> list[Check]:
    """Return where the reported quality of `who` (a round, teacher, or a rival) does not follow from its predictions.

    Intervals are drawn again with the recorded seed; rows and labels are compared with the prepared sets.
    """
    folder = view / evaluated
    report = read_json(folder / "quality.json")
    rival = "rivals" in report
    sets = report["rivals"][who]["sets"] if rival else report["sets"]
    found: list[Check] = []
    if not rival:
        weights = file_sha256(view / f"artifacts/rounds/{who}/trained/model/model.safetensors")
        found += compare(
            "metrics", f"{who}: model_sha256", weights, report["model_sha256"], "measured on another model"
        )
    for name, entry in sets.items():
        rows = _predictions((folder / "predictions" / who if rival else folder / "predictions") / f"{name}.parquet")
        teacher = (
            None if rival else _predictions(view / f"artifacts/rounds/teacher/evaluated/predictions/{name}.parquet")
        )
        subject = f"{who}: {name}"
        found += _rows(subject, rows, entry, view / f"artifacts/data/sets/{name}.parquet")
        slices = {
            one: np.array([one == "overall" or one in mine for mine in rows["slices"]]) for one in entry["slices"]
        }
        again = measure_slices(
            rows["label"], rows["logits"], teacher["logits"].argmax(axis=1) if teacher else None, slices,
            bins=params["evaluate"]["calibration_bins"], resamples=params["evaluate"]["bootstrap_resamples"],
            confidence=params["evaluate"]["confidence"], seed=params["seed"],
        )  # fmt: skip
        found += differences(subject, again, entry["slices"])
        # Earlier versions told the accuracy alone, and kept no choices that it could be derived from.
        if teacher and "agreement" in entry["variants"].get("onnx_int8", {}):
            rounded = measure_int8(
                rows["label"], rows[INT8_COLUMN], rows["prediction"], teacher[INT8_COLUMN],
                resamples=params["evaluate"]["bootstrap_resamples"], confidence=params["evaluate"]["confidence"],
                seed=params["seed"],
            )  # fmt: skip
            found += differences(subject, {"onnx_int8": rounded}, entry["variants"])
    return found


def _rows(subject: str, rows: Mapping[str, Any], entry: Mapping[str, Any], place: Path) -> list[Check]:
    """Return where the predicted rows are not the rows of the prepared set, with its labels."""
    table = pq.read_table(place, columns=["row_id", "label"])
    ids = table["row_id"].to_pylist()
    found = compare("metrics", f"{subject}: rows", ids, rows["row_id"], "other rows than those of the prepared set")
    found += compare(
        "metrics", f"{subject}: labels", table["label"].to_pylist(), rows["label"].tolist(), "other labels"
    )
    found += compare(
        "metrics", f"{subject}: rows_sha256", rows_sha256(ids), entry["rows_sha256"], "reported of other rows"
    )
    return found + compare("metrics", f"{subject}: predictions", rows["logits"].argmax(axis=1).tolist(),
                           rows["prediction"].tolist(), "not the largest of the logits")  # fmt: skip


def differences(subject: str, again: Any, told: Any) -> list[Check]:
    """Return the numbers in which two nested reports differ by more than rounding."""
    if isinstance(again, Mapping) and isinstance(told, Mapping):
        found: list[Check] = []
        for key in sorted({*again, *told}):
            found += differences(f"{subject}: {key}", again.get(key), told.get(key))
        return found
    if isinstance(again, int | float) and isinstance(told, int | float) and abs(again - told) <= TOLERANCE:
        return []
    return compare("metrics", subject, again, told, "quality.json says another number than its predictions give")


def _predictions(path: Path) -> dict[str, Any]:
    table = pq.read_table(path)
    logits = [
        table[f"logit_{number}"].to_numpy() for number in range(sum(c.startswith("logit_") for c in table.column_names))
    ]
    rounded = {INT8_COLUMN: table[INT8_COLUMN].to_numpy()} if INT8_COLUMN in table.column_names else {}
    return {
        **rounded, "row_id": table["row_id"].to_pylist(), "label": table["label"].to_numpy(),
        "prediction": table["prediction"].to_numpy(), "logits": np.stack(logits, axis=1), "slices": table["slices"].to_pylist(),
    }  # fmt: skip


def judged(view: Path, receipt: Receipt) -> list[Check]:
    """Return where a verdict is not the one that the gate gives on the stored files with the recorded rules."""
    stage = receipt["stage"]
    try:
        params = recorded_params(receipt["params"])
    except ValidationError as error:
        return [unknown("verdict", stage, f"the recorded params are not of this version: {error.errors()[0]['msg']}")]
    with tempfile.TemporaryDirectory(dir=view) as folder:
        outputs = rerun(receipt, params, view, Path(folder))
        ours, theirs = (_verdict(read_json(one)) for one in (Path(folder) / outputs[0], view / outputs[0]))
    found = compare(
        "verdict", f"{stage}: verdict", ours["verdict"], theirs["verdict"], "the rules give another verdict"
    )
    for number, (one, other) in enumerate(zip(ours["rules"], theirs["rules"], strict=True), start=1):
        found += compare(
            "verdict", f"{stage}: rule {number}", one, other, "the gate finds something else on these files"
        )
    return found


def _verdict(content: dict[str, Any]) -> dict[str, Any]:
    # Sentences are for people and may be worded better in a later version.
    return {**content, "rules": [{k: v for k, v in rule.items() if k != "sentence"} for rule in content["rules"]]}


def rerun(receipt: Receipt, params: AnyParams, view: Path, out: Path) -> list[str]:
    """Run a stage again with the arguments of its receipt, on the files of a view, into `out`; return its output paths."""
    from tasks.stage import run_of, stage_function

    verb, *words = receipt["command"]
    _, roles = stage_function(importlib.import_module(f"tasks.{verb}"))
    arguments: dict[str, Any] = {}
    outputs = []
    for flag, value in zip(words[::2], words[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        if name in ("receipt", "params"):
            continue
        arguments[name] = value
        if roles.get(name) == "input":
            arguments[name] = view / value
        elif roles.get(name) == "output":
            arguments[name] = out / value
            arguments[name].parent.mkdir(parents=True, exist_ok=True)
            outputs.append(value)
    run_of(verb, params)(params, **arguments)
    return outputs
