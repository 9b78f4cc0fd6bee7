"""Cuts a parent to the shape of a round: scores from calibration rows, a plan of what stays, the smaller model.

deps: parent model and tokens, data/sets, the teacher's config for `ratio` | params: prune, rounds.<round>, data, seed
outs: rounds/<round>/pruned, rounds/<round>/tokens
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tasks.data.frames import SETS_WITHOUT_CALIBRATION, read_sets
from tasks.data.tokens import TokenSet, load_tokens, save_tokens, tokenize
from tasks.distillation.predict import predict_logits
from tasks.lineage.files import file_sha256, read_json, write_json
from tasks.models.architectures import adapter_of, num_layers, without_layers
from tasks.models.calibration import BATCH_ROWS, Calibration, Labels
from tasks.models.checkpoint import (
    classifier_from_config,
    copy_tokenizer,
    load_classifier,
    read_config,
    save_classifier,
)
from tasks.models.devices import Device, pick
from tasks.models.masking import apply_masks
from tasks.models.planning import Measure, target_shape
from tasks.models.weight_scores import make_masks
from tasks.params import Params, Round
from tasks.progress import say
from tasks.pruning.criteria import CRITERIA, Scores, keep_best
from tasks.pruning.depth import blocks, harm_nats_per_row
from tasks.pruning.masks import sparsity_of
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights
from tasks.pruning.vocabulary import (
    count_pieces,
    is_wordpiece,
    kept_ids,
    pieces_in_order,
    renumbered,
    smaller_settings,
    smaller_tokenizer,
)
from tasks.stage import InPath, OutPath

MASKS_FILE = "masks.safetensors"


def run(
    params: Params,
    *,
    round: str,
    parent: InPath,
    tokens: InPath,
    sets: InPath,
    teacher: InPath,
    out: OutPath,
    student_tokens: OutPath,
) -> dict[str, Any]:
    """Return the shapes before and after and the parameters of the student."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = Device(device.device, "fp32", device.threads)  # scores are read once and ranked: no reason to round them
    config, section = read_config(parent), params.rounds[round]
    measure = Measure(read_config(teacher), len(params.data.labels), params.evaluate.latency_tokens)
    target = target_shape(f"params.yaml: rounds.{round}", section, config, measure)
    adapter = adapter_of(config)
    before = adapter.shape(config)
    model = load_classifier(parent)
    calibration = load_tokens(tokens / "calibration")

    labels = calibration_labels(sets)
    criterion = section.criterion or params.prune.criterion
    scores = CRITERIA[criterion](Calibration(model, calibration, labels, device, params.seed))
    layers, harms = choose_layers(model, calibration, target["layers"], device)
    pieces = _kept_pieces(parent, model.config.to_dict(), tokens, target["vocabulary"])
    plan = make_plan(scores, layers, target, pieces, adapter.head_groups(config))
    student = student_from_plan(parent, plan)
    more: dict[str, Any] = {"budget": section.budgets} if section.budgets else {}
    if section.granularity != "structured":
        masks = make_masks(model, calibration, labels, device, section, criterion, params.seed)
        more["masks"] = _save_masks(student, masks, section, out)

    folder = out / "model"
    save_classifier(student, parent, folder)
    write_tokenizer(parent, plan, folder)
    save_file(named_scores(scores), out / "scores.safetensors")
    record = plan_record(criterion, plan, parent, out, before)
    write_json(out / "plan.json", {**record, "layer_block_harm_nats_per_row": harms, **more})
    _tokenize_sets(params, sets, folder, student_tokens)
    counted = adapter.count_parameters(config, target, len(params.data.labels))
    assert counted["total"] == student.num_parameters(), "the plan's arithmetic and the model disagree"
    say(f"{round}: {model.num_parameters():,} -> {counted['total']:,} parameters; layers kept: {layers}")
    return {"shape_before": before, "shape_after": target, "params_total": counted["total"], **device.facts()}


def calibration_labels(sets: Path) -> Labels:
    """Return the label of each calibration row, which has it as a row of the training set; int64."""
    frames = read_sets(sets, ["train", "calibration"])
    by_row = frames["train"].set_index("row_id")["label"]
    return by_row.loc[frames["calibration"]["row_id"]].to_numpy(dtype=np.int64)


def choose_layers(model: Any, calibration: TokenSet, count: int, device: Device) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep and, for each block tried, the harm of dropping it in nats per calibration row."""
    total = num_layers(model)
    candidates = blocks(total, count)
    if candidates == [set()]:
        return list(range(total)), {}
    full = torch.from_numpy(predict_logits(model, calibration, BATCH_ROWS, device))
    harms: dict[str, float] = {}
    for dropped in candidates:
        with without_layers(model, dropped):
            logits = torch.from_numpy(predict_logits(model, calibration, BATCH_ROWS, device))
        harms[",".join(map(str, sorted(dropped)))] = harm_nats_per_row(full, logits)
    best = min(range(len(candidates)), key=list(harms.values()).__getitem__)
    return [i for i in range(total) if i not in candidates[best]], harms


def make_plan(scores: Scores, layers: list[int], target: dict[str, int], pieces: list[int], head_groups: int) -> Plan:
    """Return what is kept along each axis to reach the target shape; of each group of heads the same number."""
    return Plan(
        vocabulary=pieces,
        hidden=keep_best(scores.hidden_D, target["hidden"]),
        layers=layers,
        heads=[keep_best(scores.heads_LH[layer], target["heads"], head_groups) for layer in layers],
        ffn=[keep_best(scores.ffn_LF[layer], target["ffn"]) for layer in layers],
        pooler=keep_best(scores.pooler_D, target["hidden"]) if len(scores.pooler_D) else [],
    )


def student_from_plan(parent: Path, plan: Plan) -> Any:
    """Return the pruned model that follows from the parent's folder and a plan, bit for bit."""
    config = read_config(parent)
    adapter = adapter_of(config)
    parent_weights = load_file(parent / "model.safetensors")
    weights = slice_weights(parent_weights, adapter.layout(config), plan, adapter.head_size(config))
    student = classifier_from_config(renumbered(adapter.resized(config, plan.shape()), plan.vocabulary))
    student.load_state_dict(weights, strict=True)
    return student


def write_tokenizer(parent: Path, plan: Plan, out: Path) -> None:
    """Write a student's tokenizer in the forms stock classes read: tokenizer.json, vocab.txt, and its settings.

    A byte-level one of which all stays is left as `save_classifier` or `save_causal_lm` copied it.
    """
    tokenizer = read_json(parent / "tokenizer.json")
    wordpiece = is_wordpiece(tokenizer)
    if not wordpiece and len(plan.vocabulary) == int(read_config(parent)["vocab_size"]):
        return
    copy_tokenizer(parent, out)
    tokenizer = smaller_tokenizer(tokenizer, plan.vocabulary)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1), encoding="utf-8")
    if wordpiece:
        (out / "vocab.txt").write_text("\n".join(pieces_in_order(tokenizer)) + "\n", encoding="utf-8")
    elif (out / "tokenizer_config.json").exists():
        write_json(
            out / "tokenizer_config.json", smaller_settings(read_json(out / "tokenizer_config.json"), plan.vocabulary)
        )


def _kept_pieces(parent: Path, config: dict[str, Any], tokens: Path, size: int) -> list[int]:
    before = int(config["vocab_size"])
    if size == before:
        return list(range(size))
    train, transfer = (count_pieces(load_tokens(tokens / name).ids, before) for name in ("train", "transfer"))
    return kept_ids(read_json(parent / "tokenizer.json"), train + transfer, size, config)


def _tokenize_sets(params: Params, sets: Path, model: Path, out: Path) -> None:
    frames = read_sets(sets, [*SETS_WITHOUT_CALIBRATION, *params.data.further_sets, "calibration"])
    for name, frame in frames.items():
        tokens = tokenize(frame["text"].tolist(), model / "tokenizer.json", params.data.max_tokens)
        save_tokens(tokens, out / name)


def named_scores(scores: Scores) -> dict[str, torch.Tensor]:
    """Return the scores by axis, ready to be saved."""
    return {name: tensor.float().contiguous() for name, tensor in vars(scores).items()}


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


def plan_record(criterion: str, plan: Plan, parent: Path, out: Path, before: dict[str, int]) -> dict[str, Any]:
    """Return what plan.json says of a plan, besides the harm of each block of layers."""
    return {
        "criterion": criterion,
        "parent_sha256": file_sha256(parent / "model.safetensors"),
        "scores_sha256": file_sha256(out / "scores.safetensors"),
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
        "shape_before": before,
        "shape_after": plan.shape(),
        "keep": vars(plan),
    }
