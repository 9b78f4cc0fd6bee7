"""Cuts a language model to the shape of a round: scores from calibration blocks, a plan of what stays, the smaller model.

deps: parent model and its blocks | params: seed, data, prune, rounds.<round>
outs: rounds/<round>/pruned, rounds/<round>/search/planned.json, rounds/<round>/tokens
"""

from __future__ import annotations

import itertools
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from tasks.artifacts import write_planned
from tasks.data.blocks import Blocks, load_blocks, pack_sets
from tasks.data.frames import read_sets
from tasks.data.segments import load_segments, save_segments, segments_of, windows_of
from tasks.data.vocabulary import count_pieces, kept_ids, renumbered
from tasks.files import read_json, write_json
from tasks.models.architectures import adapter_of, num_layers
from tasks.models.causal_lm import count_parameters
from tasks.models.checkpoint import (
    causal_lm_from_config,
    copy_tokenizer,
    end_id,
    load_causal_lm,
    load_weights,
    read_config,
    save_causal_lm,
)
from tasks.models.devices import Device, pick
from tasks.models.predict import predict_blocks
from tasks.params.causal_lm import CausalLMParams
from tasks.progress import Progress, say
from tasks.pruning.calibration import BATCH_BLOCKS, BlockCalibration
from tasks.pruning.criteria import CRITERIA
from tasks.pruning.cut import Missed, least_missed, make_plan, named_scores, plan_record, write_tokenizer
from tasks.pruning.depth import blocks as candidate_blocks
from tasks.pruning.depth import protected_ends, without_each
from tasks.pruning.planning import causal_shape
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights
from tasks.running.stage import InPath, OutPath

DEPTH_BLOCKS: Final = 16  # calibration blocks on which every candidate is tried: there may be twenty of them
CHUNK_TOKENS: Final = 512


def run(
    params: CausalLMParams,
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
    """Return the shape and size of the student."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = Device(device.device, "fp32", device.threads)  # scores are read once and ranked: no reason to round them
    config = read_config(parent)
    section = params.rounds[round]
    where = f"params.yaml: rounds.{round}"
    target = causal_shape(where, section, config, read_config(teacher), params.evaluate.latency_tokens)
    adapter = adapter_of(config)
    before = adapter.shape(config)
    model = load_causal_lm(parent)
    calibration = load_blocks(tokens, "calibration")

    statistics = BlockCalibration(model, calibration, device, params.seed, f"prune@{round}")
    scores = CRITERIA[params.prune.criterion](statistics)
    kept = _kept_pieces(parent, config, tokens, target["vocabulary"])
    influences = statistics.influences if params.prune.depth == "block_influence" else None
    layers, harms = choose_layers(model, calibration[:DEPTH_BLOCKS], target["layers"], device, round, influences)
    plan = make_plan(scores, layers, target, kept, adapter.head_groups(config), params.prune.merge_heads)
    student = student_from_plan(parent, plan)

    save_causal_lm(student, parent, out / "model")
    write_tokenizer(parent, plan, out / "model")
    save_file(named_scores(scores), out / "scores.safetensors")
    record = plan_record(params.prune.criterion, plan, parent, out, before)
    told = "layer_block_nll_nats_per_token" if influences is None else "layer_block_influence"
    more = {"budget": section.budgets} if section.budgets else {}
    write_json(out / "plan.json", {**record, told: harms, **more})
    if target["vocabulary"] == before["vocabulary"]:  # the tokens stay, and so do the blocks
        shutil.copytree(tokens, student_tokens, dirs_exist_ok=True)
    else:
        _cut_again(params, sets, (tokens, parent), out / "model", student_tokens)
    counted = count_parameters(config, target)
    assert counted["total"] == student.num_parameters(), "the plan's arithmetic and the model disagree"
    write_planned(planned)
    say(f"{round}: {model.num_parameters():,} -> {counted['total']:,} parameters; layers kept: {layers}")
    return {"shape_before": before, "shape_after": target, "params_total": counted["total"], **device.facts()}


def _kept_pieces(parent: Path, config: dict[str, Any], tokens: Path, size: int) -> list[int]:
    before = int(config["vocab_size"])
    if size == before:
        return list(range(size))
    counts = count_pieces(load_blocks(tokens, "train").reshape(-1), before)
    return kept_ids(read_json(parent / "tokenizer.json"), counts, size, config)


def _cut_again(
    params: CausalLMParams, sets: Path, parents: tuple[Path, Path], model: Path, student_tokens: Path
) -> None:
    """Write the documents in a student's own tokens, and the measured text cut where the teacher's blocks are cut.

    `parents` are the tokens of the parent, which are the teacher's or follow them already, and its model.
    """
    tokens, parent = parents
    end, before = end_id(read_config(model)), end_id(read_config(parent))
    student_tokens.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(model, student_tokens)
    names = ["train", *params.measured_sets()]
    pack_sets(params.data.model_dump(), read_sets(sets, names), end, student_tokens)
    tokenizer_file = parent / "tokenizer.json"
    for name in params.measured_sets():
        stored = load_segments(tokens, name)
        segments = (
            stored[0]
            if stored is not None
            else segments_of(load_blocks(tokens, name), read_json(tokenizer_file), tokenizer_file, before)
        )
        windows = windows_of(segments, student_tokens / "tokenizer.json", end, params.data.block_tokens)
        save_segments(segments, windows, student_tokens, name)


def choose_layers(
    model: Any, calibration: Blocks, count: int, device: Device, round_name: str, influences: Missed | None = None
) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep and, for each block tried, the nats per calibration token without it.

    With `influences` these are asked instead, and no block is tried.
    """
    total = num_layers(model)
    candidates = candidate_blocks(total, count, *protected_ends(count))
    if candidates == [set()]:
        return list(range(total)), {}
    if influences is not None:
        return least_missed(total, candidates, influences(candidates))
    batches = [calibration[at : at + BATCH_BLOCKS] for at in range(0, len(calibration), BATCH_BLOCKS)]
    passes = itertools.count(1)
    progress = Progress(f"prune@{round_name} depth", len(batches) * (1 + len(candidates)), "passes")

    def nats(batch: Blocks) -> float:
        found = predict_blocks(model, batch, BATCH_BLOCKS, CHUNK_TOKENS, device)
        progress.update(next(passes))
        return float(found.nll_nats_N.sum())

    tried = [without_each(model, candidates, partial(nats, batch))[1] for batch in batches]
    predicted = calibration.shape[0] * (calibration.shape[1] - 1)
    return least_missed(total, candidates, [sum(one) / predicted for one in zip(*tried, strict=True)])


def student_from_plan(parent: Path, plan: Plan) -> Any:
    """Return the pruned language model that follows from the parent's folder and a plan, bit for bit."""
    config = read_config(parent)
    adapter = adapter_of(config)
    weights = slice_weights(
        load_file(parent / "model.safetensors"), adapter.layout(config), plan, adapter.head_size(config)
    )
    student = causal_lm_from_config(renumbered(adapter.resized(config, plan.shape()), plan.vocabulary))
    load_weights(student, weights)
    return student
