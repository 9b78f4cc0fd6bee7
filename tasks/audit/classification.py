"""Derives again which candidate of a search is the best: from the curves of the short and the full trainings."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks.audit.rederive import differences, same_model
from tasks.data.frames import rows_sha256
from tasks.files import file_sha256, read_json, read_json_lines
from tasks.lineage.checks import Finding, compare
from tasks.measuring.predictions import INT8_COLUMN
from tasks.measuring.quality import Draws, measure_slices
from tasks.measuring.rows import measure_int8


def pruned(view: Path, name: str, parent: str) -> list[Finding]:
    """Return where a round's pruned model, or one of its candidates, does not follow bit for bit from its parent and its plan."""
    place = f"artifacts/rounds/{name}/pruned"
    listed = read_json(view / place / "plan.json").get("candidates")
    if listed is None:
        return _pruned(view, name, place, parent)
    found: list[Finding] = []
    for one in listed:
        folder = f"{place}/candidates/{one['candidate']}"
        record = read_json(view / folder / "plan.json")
        for key in ("shape_after", "model_sha256"):
            found += compare(
                "pruning", f"{folder}: {key}", record[key], one[key], "the list tells of another candidate"
            )
        found += _pruned(view, name, folder, parent)
    return found


def _pruned(view: Path, name: str, folder: str, parent: str) -> list[Finding]:
    from safetensors.torch import load_file

    from tasks.models.checkpoint import save_classifier
    from tasks.models.masks import apply_masks
    from tasks.pruning.classification import student_from_plan
    from tasks.pruning.cut import MASKS_FILE, write_tokenizer
    from tasks.pruning.shapes import Plan

    place, source = view / folder, view / f"artifacts/rounds/{parent}/trained/model"
    record = read_json(place / "plan.json")
    plan = Plan.from_json(record["keep"])
    found = compare(
        "pruning",
        f"{name}: plan.json: parent_sha256",
        file_sha256(source / "model.safetensors"),
        record["parent_sha256"],
        "the plan was made for another parent",
    )
    with tempfile.TemporaryDirectory(dir=view) as scratch:
        made = Path(scratch)
        student = student_from_plan(source, plan)
        if "masks" in record:
            masks = place / MASKS_FILE
            found += compare(
                "pruning",
                f"{name}: masks_sha256",
                file_sha256(masks),
                record["masks"]["masks_sha256"],
                "the plan was made with other masks",
            )
            apply_masks(student, {key: mask.bool() for key, mask in load_file(masks).items()})
        save_classifier(student, source, made)
        write_tokenizer(source, plan, made)
        return found + same_model(made, place / "model", f"{folder}/model")


def measured(view: Path, params: Mapping[str, Any], evaluated: str, who: str) -> list[Finding]:
    """Return where the reported quality of `who` (a round, teacher, or a rival) does not follow from its predictions.

    Intervals are drawn again with the recorded seed; rows and labels are compared with the prepared sets.
    """
    folder = view / evaluated
    report = read_json(folder / "quality.json")
    rival = "rivals" in report
    sets = report["rivals"][who]["sets"] if rival else report["sets"]
    found: list[Finding] = []
    if not rival:
        weights = file_sha256(view / f"artifacts/rounds/{who}/trained/model/model.safetensors")
        found += compare(
            "metrics", f"{who}: model_sha256", weights, report["model_sha256"], "measured on another model"
        )
    draws = Draws(params["evaluate"]["bootstrap_resamples"], params["evaluate"]["confidence"], params["seed"])
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
            rows["label"],
            rows["logits"],
            teacher["logits"].argmax(axis=1) if teacher else None,
            slices,
            params["evaluate"]["calibration_bins"],
            draws,
        )
        found += differences(subject, again, entry["slices"])
        # Earlier versions told the accuracy alone, and kept no choices that it could be derived from.
        if teacher and "agreement" in entry["variants"].get("onnx_int8", {}):
            rounded = measure_int8(rows["label"], rows[INT8_COLUMN], rows["prediction"], teacher[INT8_COLUMN], draws)
            found += differences(subject, {"onnx_int8": rounded}, entry["variants"])
    return found


def _rows(subject: str, rows: Mapping[str, Any], entry: Mapping[str, Any], place: Path) -> list[Finding]:
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
    return found + compare(
        "metrics",
        f"{subject}: predictions",
        rows["logits"].argmax(axis=1).tolist(),
        rows["prediction"].tolist(),
        "not the largest of the logits",
    )


def _predictions(path: Path) -> dict[str, Any]:
    table = pq.read_table(path)
    logits = [
        table[f"logit_{number}"].to_numpy() for number in range(sum(c.startswith("logit_") for c in table.column_names))
    ]
    rounded = {INT8_COLUMN: table[INT8_COLUMN].to_numpy()} if INT8_COLUMN in table.column_names else {}
    return {
        **rounded,
        "row_id": table["row_id"].to_pylist(),
        "label": table["label"].to_numpy(),
        "prediction": table["prediction"].to_numpy(),
        "logits": np.stack(logits, axis=1),
        "slices": table["slices"].to_pylist(),
    }


def searched(view: Path, name: str) -> list[Finding]:
    """Return where the ranking of a round's candidates does not follow from their curves, or the model is not the best one's."""
    from tasks.training.candidates import CURVES, SEARCH_FILE, ranked  # not above: an audit starts without torch

    place = view / f"artifacts/rounds/{name}"
    record, summary = (read_json(place / "trained" / file) for file in (SEARCH_FILE, "summary.json"))
    listed = {one["candidate"]: one for one in record["candidates"]}
    planned = [
        [one["candidate"], one["shape_after"]] for one in read_json(place / "pruned" / "plan.json")["candidates"]
    ]
    told = [[number, one["shape_after"]] for number, one in listed.items()]
    found = compare("search", f"{name}: candidates", planned, told, "other candidates than those that were cut")

    def measured(kind: str, numbers: list[int]) -> dict[int, float]:
        curves = {number: place / "trained" / CURVES / f"{kind}-{number}.jsonl" for number in numbers}
        best = {number: _best(path, record["metric"]) for number, path in curves.items()}
        for number, value in best.items():
            said = (listed[number][kind] or {}).get(f"best_{record['metric']}")
            found.extend(
                compare("search", f"{name}: candidate {number}: {kind}", value, said, "its curve has another number")
            )
        return best

    order = ranked(measured("short", list(listed)))
    ranks = {number: one["rank_after"] for number, one in listed.items()}
    right = {number: order.index(number) + 1 for number in listed}
    found += compare("search", f"{name}: rank_after", right, ranks, "the numbers give another order")
    kept = order[: record["keep"]]
    found += _copies(place, name, order, kept)
    finished = [number for number, one in listed.items() if one["finished"] is not None]
    found += compare(
        "search", f"{name}: finished", sorted(kept), sorted(finished), "others than the best were finished"
    )
    chosen = ranked(measured("finished", kept))[0]
    found += compare("search", f"{name}: chosen", chosen, record["chosen"], "is not the best of the finished ones")
    best = listed[chosen]
    found += compare(
        "search",
        f"{name}: model_sha256",
        best["finished"]["model_sha256"],
        summary["model_sha256"],
        "the model of the round is not the one that was chosen",
    )
    return found + compare(
        "search",
        f"{name}: shape",
        _shape(place / "trained/model/config.json"),
        best["shape_after"],
        "the model has another shape than the chosen candidate",
    )


def _copies(place: Path, name: str, order: list[int], kept: list[int]) -> list[Finding]:
    """Return the curves that are not those which the stages `trial` and `finish` wrote; none where one stage did it all."""
    from tasks.artifacts import FINISHED, TRIED
    from tasks.training.candidates import CURVES

    if not (place / "search" / TRIED).exists():
        return []
    written = {f"short-{number}": place / "search" / TRIED / str(number) for number in order}
    written |= {f"finished-{number}": place / "search" / FINISHED / str(at) for at, number in enumerate(kept, start=1)}
    found: list[Finding] = []
    for curve, folder in written.items():
        ours = file_sha256(folder / "steps.jsonl")
        theirs = file_sha256(place / "trained" / CURVES / f"{curve}.jsonl")
        found += compare("search", f"{name}: {curve}", ours, theirs, "is not the curve of that training")
    return found


def _best(path: Path, metric: str) -> float:
    return min(float(line[metric]) for line in read_json_lines(path) if metric in line)


def _shape(path: Path) -> Mapping[str, Any]:
    from tasks.models.architectures import adapter_of

    config = read_json(path)
    return dict(adapter_of(config).shape(config))
