"""Cuts a language model to the shape of a round: scores from calibration blocks, a plan of what stays, the smaller model.

deps: parent model and its blocks | params: seed, data, prune, rounds.<round>
outs: rounds/<round>/pruned, rounds/<round>/tokens
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from tasks.data.blocks import Blocks, load_blocks
from tasks.distillation.predict_blocks import predict_blocks
from tasks.lineage.files import write_json
from tasks.models.architectures import adapter_of, num_layers, without_layers
from tasks.models.calibration import BATCH_BLOCKS, BlockCalibration
from tasks.models.causal import count_parameters
from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, load_weights, read_config, save_causal_lm
from tasks.models.devices import Device, pick
from tasks.params_causal import CausalParams
from tasks.progress import Progress, say
from tasks.prune import make_plan, named_scores, plan_record
from tasks.pruning.criteria import CRITERIA
from tasks.pruning.depth import blocks as candidate_blocks
from tasks.pruning.depth import protected_ends
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights
from tasks.stage import InPath, OutPath

DEPTH_BLOCKS: Final = 16  # calibration blocks on which every candidate is tried: there may be twenty of them
CHUNK_TOKENS: Final = 512


def run(
    params: CausalParams,
    *,
    round: str,
    parent: InPath,
    tokens: InPath,
    sets: InPath,  # noqa: ARG001 - their blocks are in `tokens`
    teacher: InPath,  # noqa: ARG001 - its config is what budgets of classifiers are counted with
    out: OutPath,
    student_tokens: OutPath,
) -> dict[str, Any]:
    """Return the shape and size of the student."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = Device(device.device, "fp32", device.threads)  # scores are read once and ranked: no reason to round them
    target = params.rounds[round].axes
    config = read_config(parent)
    adapter = adapter_of(config)
    before = adapter.shape(config)
    model = load_causal_lm(parent)
    calibration = load_blocks(tokens, "calibration")

    scores = CRITERIA[params.prune.criterion](BlockCalibration(model, calibration, device, params.seed))
    layers, harms = choose_layers(model, calibration[:DEPTH_BLOCKS], target["layers"], device, round)
    plan = make_plan(scores, layers, target, list(range(before["vocabulary"])), adapter.head_groups(config))
    student = student_from_plan(parent, plan)

    save_causal_lm(student, parent, out / "model")
    save_file(named_scores(scores), out / "scores.safetensors")
    record = plan_record(params.prune.criterion, plan, parent, out, before)
    write_json(out / "plan.json", {**record, "layer_block_nll_nats_per_token": harms})
    shutil.copytree(tokens, student_tokens, dirs_exist_ok=True)  # the vocabulary stays, and so do the blocks
    counted = count_parameters(config, target)
    assert counted["total"] == student.num_parameters(), "the plan's arithmetic and the model disagree"
    say(f"{round}: {model.num_parameters():,} -> {counted['total']:,} parameters; layers kept: {layers}")
    return {"shape_before": before, "shape_after": target, "params_total": counted["total"], **device.facts()}


def choose_layers(
    model: Any, calibration: Blocks, count: int, device: Device, round_name: str
) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep and, for each block tried, the nats per calibration token without it."""
    total = num_layers(model)
    candidates = candidate_blocks(total, count, *protected_ends(count))
    if candidates == [set()]:
        return list(range(total)), {}
    progress = Progress(f"prune@{round_name} depth", len(candidates), "candidates")
    harms: dict[str, float] = {}
    for number, dropped in enumerate(candidates, start=1):
        with without_layers(model, dropped):
            found = predict_blocks(model, calibration, BATCH_BLOCKS, CHUNK_TOKENS, device)
        harms[",".join(map(str, sorted(dropped)))] = found.nats_per_token
        progress.update(number)
    best = min(range(len(candidates)), key=list(harms.values()).__getitem__)
    return [i for i in range(total) if i not in candidates[best]], harms


def student_from_plan(parent: Path, plan: Plan) -> Any:
    """Return the pruned language model that follows from the parent's folder and a plan, bit for bit."""
    config = read_config(parent)
    adapter = adapter_of(config)
    weights = slice_weights(
        load_file(parent / "model.safetensors"), adapter.layout(config), plan, adapter.head_size(config)
    )
    student = causal_lm_from_config(adapter.resized(config, plan.shape()))
    load_weights(student, weights)
    return student
