"""What an audit derives again of a classifier: pruned weights, metrics from predictions, the best candidate of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks.artifacts import FINISHED, SETS, TEACHER, TRIED, RoundPaths, original_of
from tasks.audit.rederive import differences, draws_of, follows, measured_sets, same_rows
from tasks.data.pairs import GROUP
from tasks.files import file_sha256, read_json, read_json_lines
from tasks.lineage.checks import Finding, compare
from tasks.measuring.pieces import pieces_of
from tasks.measuring.predictions import INT8_COLUMN, SWAPPED
from tasks.measuring.quality import Draws, measure_slices
from tasks.measuring.rows import measure_int8, measure_order, temperature_of
from tasks.measuring.slices import masks_of
from tasks.measuring.unlabelled import measure_unlike, unlike
from tasks.pruning.shapes import Plan


def pruned(view: Path, name: str, parent: str) -> list[Finding]:
    """Return where a round's pruned model, or one of its candidates, does not follow bit for bit from its parent and its plan."""
    from tasks.pruning.cut import CANDIDATES  # not above: an audit starts without torch

    place = RoundPaths(view, name).pruned
    listed = read_json(place / "plan.json").get(CANDIDATES)
    if listed is None:
        return _pruned(view, place, name, parent)
    findings: list[Finding] = []
    for candidate in listed:
        folder = place / CANDIDATES / str(candidate["candidate"])
        record, sentence = read_json(folder / "plan.json"), "the list tells of another candidate"
        for key in ("shape_after", "model_sha256"):
            subject = f"{folder.relative_to(view)}: {key}"
            findings += compare("pruning", subject, record[key], candidate[key], sentence)
        findings += _pruned(view, folder, name, parent)
    return findings


def _pruned(view: Path, folder: Path, name: str, parent: str) -> list[Finding]:
    from safetensors.torch import load_file

    from tasks.models.checkpoint import save_classifier
    from tasks.models.masks import apply_masks
    from tasks.pruning.classification import student_from_plan
    from tasks.pruning.cut import MASKS_FILE

    masks, findings = read_json(folder / "plan.json").get("masks"), []
    if masks is not None:
        sha256, sentence = file_sha256(folder / MASKS_FILE), "the plan was made with other masks"
        findings = compare("pruning", f"{name}: masks_sha256", sha256, masks["masks_sha256"], sentence)

    def write(source: Path, plan: Plan, made: Path) -> None:
        student = student_from_plan(source, plan)
        if masks is not None:
            apply_masks(student, {key: mask.bool() for key, mask in load_file(folder / MASKS_FILE).items()})
        save_classifier(student, source, made)

    return findings + follows(view, folder, name, parent, write)


def measured(view: Path, params: Mapping[str, Any], name: str) -> list[Finding]:
    """Return where the reported quality of a round or the teacher does not follow from its predictions.

    Intervals are drawn again with the recorded seed; rows and labels are compared with the prepared sets.
    """
    paths, teacher_paths = RoundPaths(view, name), RoundPaths(view, TEACHER)
    sets, findings = measured_sets(view, name)
    draws, bins = draws_of(params), params["evaluate"]["calibration_bins"]
    for set_name, entry in sets.items():
        subject, file = f"{name}: {set_name}", f"{set_name}.parquet"
        rows, teacher = (_predictions(place.predictions / file) for place in (paths, teacher_paths))
        findings += _rows(subject, rows, entry["rows_sha256"], view / SETS / file)
        slices = {
            slice_name: np.array([slice_name == "overall" or slice_name in of_row for of_row in rows["slices"]])
            for slice_name in entry["slices"]
        }
        choices = teacher["logits"].argmax(axis=1)
        drawn = replace(draws, groups=tuple(rows[GROUP])) if GROUP in rows else draws
        again = measure_slices(rows["label"], rows["logits"], choices, slices, bins, drawn)
        findings += differences(subject, again, entry["slices"])
        # Earlier versions reported the accuracy alone, and kept no choices that it could be derived from.
        if "agreement" in entry["variants"].get("onnx_int8", {}):
            answers = rows["label"], rows[INT8_COLUMN], rows["prediction"], teacher[INT8_COLUMN]
            variants = {"onnx_int8": measure_int8(*answers, drawn)}
            if SWAPPED in rows:
                variants["swapped"] = measure_order(rows["logits"], rows[SWAPPED], drawn)
            findings += differences(subject, variants, entry["variants"])
    return findings + _without_labels(view, name, draws)


def _without_labels(view: Path, name: str, draws: Draws) -> list[Finding]:
    """Return where what is reported of sets without labels does not follow from both models' predictions, and from the texts."""
    paths, teacher_paths = RoundPaths(view, name), RoundPaths(view, TEACHER)
    findings: list[Finding] = []
    for set_name, entry in read_json(paths.quality).get("unlabelled", {}).items():
        subject, file = f"{name}: {set_name}", f"{set_name}.parquet"
        rows, teacher = (_predictions(place.predictions / file) for place in (paths, teacher_paths))
        findings += _rows(subject, rows, entry["rows_sha256"], view / SETS / file)
        ids = rows["row_id"] if any(row != original_of(row) for row in rows["row_id"]) else ()
        compared = unlike(rows["logits"], teacher["logits"], temperature_of(teacher_paths.evaluated), ids)
        again = measure_unlike(compared, masks_of(rows["slices"], entry["slices"]), draws)
        findings += differences(subject, again, entry["slices"])
        texts = pq.read_table(view / SETS / file, columns=["text"])["text"].to_pylist()
        pieces = pieces_of(texts, *(place.model / "tokenizer.json" for place in (paths, teacher_paths)))
        findings += differences(f"{subject}: pieces", pieces, entry["pieces"])
    return findings


def _rows(subject: str, rows: Mapping[str, Any], recorded: str, place: Path) -> list[Finding]:
    """Return where the predicted rows are not the rows of the prepared set, with its labels."""
    table = pq.read_table(place, columns=["row_id", "label"])
    ids, labels = (table[column].to_pylist() for column in ("row_id", "label"))
    findings = same_rows(subject, ids, rows["row_id"], recorded, "rows")
    findings += compare("metrics", f"{subject}: labels", labels, rows["label"].tolist(), "other labels")
    chosen, predicted = rows["logits"].argmax(axis=1).tolist(), rows["prediction"].tolist()
    sentence = "not the largest of the logits"
    return findings + compare("metrics", f"{subject}: predictions", chosen, predicted, sentence)


def _predictions(path: Path) -> dict[str, Any]:
    table = pq.read_table(path)
    num_classes = sum(column.startswith("logit_") for column in table.column_names)
    columns = ["label", "prediction", *([INT8_COLUMN] if INT8_COLUMN in table.column_names else [])]
    swapped = [f"{SWAPPED}{number}" for number in range(num_classes)]
    of_pairs: dict[str, Any] = {GROUP: table[GROUP].to_pylist()} if GROUP in table.column_names else {}
    if swapped[0] in table.column_names:
        of_pairs[SWAPPED] = np.stack([table[column].to_numpy() for column in swapped], axis=1)
    return {
        **{column: table[column].to_numpy() for column in columns},
        **{column: table[column].to_pylist() for column in ("row_id", "slices")},
        **of_pairs,
        "logits": np.stack([table[f"logit_{number}"].to_numpy() for number in range(num_classes)], axis=1),
    }


def searched(view: Path, name: str) -> list[Finding]:
    """Return where the ranking of a round's candidates does not follow from their curves, or the model is not the best one's."""
    from tasks.training.candidates import SEARCH_FILE, ranked  # not above: an audit starts without torch

    paths, same = RoundPaths(view, name), partial(compare, "search")
    record, summary = (read_json(paths.trained / file) for file in (SEARCH_FILE, "summary.json"))
    listed = {candidate["candidate"]: candidate for candidate in record["candidates"]}
    planned = [[cut["candidate"], cut["shape_after"]] for cut in read_json(paths.plan)["candidates"]]
    ranked_shapes = [[number, candidate["shape_after"]] for number, candidate in listed.items()]
    sentence = "other candidates than those that were cut"
    findings = same(f"{name}: candidates", planned, ranked_shapes, sentence)

    def measured(kind: str, numbers: list[int]) -> dict[int, float]:
        """Return number -> the best loss by the curve of each training, and note where the record has another one."""
        best = {number: _best(_curve(paths, kind, number), record["metric"]) for number in numbers}
        for number, value in best.items():
            recorded = (listed[number][kind] or {}).get(f"best_{record['metric']}")
            subject = f"{name}: candidate {number}: {kind}"
            findings.extend(same(subject, value, recorded, "its curve has another number"))
        return best

    order = ranked(measured("short", list(listed)))
    ranks = {number: candidate["rank_after"] for number, candidate in listed.items()}
    right = {number: order.index(number) + 1 for number in listed}
    findings += same(f"{name}: rank_after", right, ranks, "the numbers give another order")
    kept = order[: record["keep"]]
    findings += _copies(paths, order, kept)
    finished = sorted(number for number, candidate in listed.items() if candidate["finished"] is not None)
    findings += same(f"{name}: finished", sorted(kept), finished, "others than the best were finished")
    chosen = ranked(measured("finished", kept))[0]
    findings += same(f"{name}: chosen", chosen, record["chosen"], "is not the best of the finished ones")
    best, sentence = listed[chosen], "the model of the round is not the one that was chosen"
    weights = best["finished"]["model_sha256"]
    findings += same(f"{name}: model_sha256", weights, summary["model_sha256"], sentence)
    shape, sentence = _shape(paths.model / "config.json"), "the model has another shape than the chosen candidate"
    return findings + same(f"{name}: shape", shape, best["shape_after"], sentence)


def _curve(paths: RoundPaths, kind: str, number: int) -> Path:
    """Return the curve of a short or a finished training of a candidate, as a file."""
    from tasks.training.candidates import CURVES

    return paths.trained / CURVES / f"{kind}-{number}.jsonl"


def _copies(paths: RoundPaths, order: list[int], kept: list[int]) -> list[Finding]:
    """Return the curves that are not those which the stages `trial` and `finish` wrote; none where one stage did it all."""
    if not (paths.search / TRIED).exists():
        return []
    written = {("short", number): paths.search / TRIED / str(number) for number in order}
    written |= {("finished", number): paths.search / FINISHED / str(at) for at, number in enumerate(kept, start=1)}
    findings: list[Finding] = []
    for (kind, number), folder in written.items():
        original, copy = file_sha256(folder / "steps.jsonl"), file_sha256(_curve(paths, kind, number))
        subject, sentence = f"{paths.name}: {kind}-{number}", "is not the curve of that training"
        findings += compare("search", subject, original, copy, sentence)
    return findings


def _best(path: Path, metric: str) -> float:
    return min(float(line[metric]) for line in read_json_lines(path) if metric in line)


def _shape(path: Path) -> Mapping[str, Any]:
    from tasks.models.architectures import adapter_of

    config = read_json(path)
    return dict(adapter_of(config).shape(config))
