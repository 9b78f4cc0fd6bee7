"""Cuts a parent to the shape of a round: scores from calibration rows, a plan of what stays, the smaller model.

deps: parent model and tokens, data/sets, the teacher's config for `ratio` | params: prune, rounds.<round>, data, seed
outs: rounds/<round>/pruned, rounds/<round>/search/planned.json, rounds/<round>/tokens
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tasks.artifacts import write_planned
from tasks.data.frames import SETS_WITHOUT_CALIBRATION, read_sets
from tasks.data.tokens import load_tokens, save_tokens, tokenize
from tasks.files import file_sha256, write_json
from tasks.models.architectures import adapter_of, num_layers
from tasks.models.checkpoint import load_classifier, read_config
from tasks.models.devices import Device, pick
from tasks.models.masks import apply_masks, sparsity_of
from tasks.params.classification import ClassificationParams
from tasks.params.rounds import Round
from tasks.pruning.calibration import Calibration, Labels
from tasks.pruning.criteria import CRITERIA
from tasks.pruning.cut import CANDIDATES, MASKS_FILE, Cutter, named_scores
from tasks.pruning.depth import blocks
from tasks.pruning.planner import Candidate
from tasks.pruning.planning import Measure, searched_shapes, target_shape
from tasks.pruning.weight_scores import make_masks
from tasks.running.stage import InPath, OutPath


def run(
    params: ClassificationParams,
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
    device = Device(device.device, "fp32", device.threads)  # scores are read once and ranked: no reason to round them
    config, section = read_config(parent), params.rounds[round]
    measure = Measure(read_config(teacher), len(params.data.labels), params.evaluate.latency_tokens)
    where = f"params.yaml: rounds.{round}"
    searched = searched_shapes(where, section, config, measure) if section.search else []
    target = target_shape(where, section, config, measure)
    model, calibration = load_classifier(parent), load_tokens(tokens / "calibration")
    labels = calibration_labels(sets)
    criterion = section.criterion or params.prune.criterion
    by_harm = params.prune.depth == "harm"
    counts = sorted({one.shape["layers"] for one in searched} or {target["layers"]}) if by_harm else []
    could_go = [block for count in counts for block in blocks(num_layers(model), count) if block]
    statistics = Calibration(model, calibration, labels, device, params.seed, could_go, f"prune@{round}")
    scores = CRITERIA[criterion](statistics)
    out.mkdir(parents=True, exist_ok=True)
    save_file(named_scores(scores), out / "scores.safetensors")
    cutter = Cutter(
        round,
        parent,
        tokens,
        out,
        model,
        scores,
        criterion,
        measure.classes,
        "layer_block_harm_nats_per_row" if by_harm else "layer_block_influence",
        statistics.harms if by_harm else statistics.influences,
        params.prune.merge_heads,
    )

    def mask(student: Any) -> dict[str, Any]:
        more: dict[str, Any] = {"budget": section.budgets} if section.budgets else {}
        if section.measured is not None:
            more["measured"] = section.measured.model_dump()
        if section.granularity != "structured":
            masks = make_masks(model, calibration, labels, device, section, criterion, params.seed)
            more["masks"] = _save_masks(student, masks, section, out)
        return more

    if searched:
        facts = _cut_candidates(cutter, searched, section)
    else:
        _, total = cutter.cut(target, out, mask)
        facts = {"shape_after": target, "params_total": total}
    write_planned(planned, len(searched), section.search.keep if section.search else 0)
    before = adapter_of(config).shape(config)
    wanted = searched[0].shape if searched else target  # all candidates have the same vocabulary
    if wanted["vocabulary"] == before["vocabulary"]:  # the tokens stay
        shutil.copytree(tokens, student_tokens, dirs_exist_ok=True)
    else:
        _tokenize_sets(params, sets, out / CANDIDATES / "1" / "model" if searched else out / "model", student_tokens)
    return {"shape_before": before, **facts, **device.facts()}


def _cut_candidates(cutter: Cutter, searched: list[Candidate], section: Round) -> dict[str, Any]:
    """Write candidates/<number>/ for each shape, and plan.json, which lists them; return the facts of the stage."""
    listed: list[dict[str, Any]] = []
    for number, one in enumerate(searched, start=1):
        record, total = cutter.cut(one.shape, cutter.out / CANDIDATES / str(number), lambda _student: {})
        listed.append(
            {
                "candidate": number,
                "shape_after": one.shape,
                "params_total": total,
                "size": one.size,
                "loss": one.loss,
                "model_sha256": record["model_sha256"],
            }
        )
    common = {key: record[key] for key in ("criterion", "parent_sha256", "scores_sha256", "shape_before")}
    write_json(cutter.out / "plan.json", {**common, "budget": section.budgets, CANDIDATES: listed})
    return {CANDIDATES: listed}


def calibration_labels(sets: Path) -> Labels:
    """Return the label of each calibration row, which has it as a row of the training set; int64."""
    frames = read_sets(sets, ["train", "calibration"])
    by_row = frames["train"].set_index("row_id")["label"]
    return by_row.loc[frames["calibration"]["row_id"]].to_numpy(dtype=np.int64)


def _tokenize_sets(params: ClassificationParams, sets: Path, model: Path, out: Path) -> None:
    frames = read_sets(sets, [*SETS_WITHOUT_CALIBRATION, *params.data.further_sets, "calibration"])
    for name, frame in frames.items():
        tokens = tokenize(frame["text"].tolist(), model / "tokenizer.json", params.data.max_tokens)
        save_tokens(tokens, out / name)


def _save_masks(student: Any, masks: dict[str, torch.Tensor], section: Round, out: Path) -> dict[str, Any]:
    """Mask the student, write masks.safetensors (1 = keep), and return what plan.json says of it."""
    apply_masks(student, masks)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: mask.to(torch.uint8) for name, mask in masks.items()}, out / MASKS_FILE)
    return {
        "granularity": section.granularity,
        "pattern": section.pattern,
        "schedule": section.schedule,
        "final_sparsity_of_masked": section.sparsity,
        "masks_sha256": file_sha256(out / MASKS_FILE),
        **sparsity_of(masks, student.num_parameters()),
    }
