"""Cuts a language model to the shape of a round."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.data.blocks import Blocks, load_blocks, pack_sets
from tasks.data.frames import read_sets
from tasks.data.segments import load_segments, save_segments, segments_of, windows_of
from tasks.data.vocabulary import count_pieces, kept_ids, most_kept
from tasks.files import read_json
from tasks.models.architectures import num_layers
from tasks.models.checkpoint import causal_lm_from_config, copy_tokenizer, end_id, load_causal_lm, read_config, save_causal_lm
from tasks.models.devices import Device
from tasks.models.predict import predict_blocks
from tasks.params.causal_lm import CausalLMParams
from tasks.progress import Progress
from tasks.pruning.calibration import BATCH_BLOCKS, BlockCalibration
from tasks.pruning.criteria import CRITERIA
from tasks.pruning.cut import Cutter, Origin, Pruned, Ranking, student_of
from tasks.pruning.depth import blocks, protected_ends, without_each
from tasks.pruning.planning import BlockMeasure, causal_shape, solves_vocabulary
from tasks.pruning.shapes import Plan

DEPTH_BLOCKS: Final = 16  # calibration blocks on which every candidate is tried: there may be twenty of them
CHUNK_TOKENS: Final = 512


class CausalLMCutter(Cutter):
    """Cuts language models, whose first and last layers stay in any case."""

    save = staticmethod(save_causal_lm)

    def student(self, plan: Plan) -> Any:
        return student_from_plan(self.origin.parent, plan)

    def pieces(self, size: int) -> list[int]:
        """Return the ids to keep by how often they occur in the training blocks."""
        parent = self.origin.parent
        config = read_config(parent)
        return kept_ids(read_json(parent / "tokenizer.json"), occurrences(self.origin, config), size, config)

    def blocks(self, num_kept: int) -> list[set[int]]:
        return blocks(num_layers(self.model), num_kept, *protected_ends(num_kept))


def occurrences(origin: Origin, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return how often each id occurs in the training blocks."""
    return count_pieces(load_blocks(origin.tokens, "train").reshape(-1), int(config["vocab_size"]))


def student_from_plan(parent: Path, plan: Plan) -> Any:
    """Return the pruned language model that follows from the parent's folder and a plan, bit for bit."""
    return student_of(parent, plan, causal_lm_from_config)


def prune(params: CausalLMParams, round_name: str, origin: Origin, out: Path, device: Device) -> Pruned:
    """Write model/, plan.json and the scores of a round."""
    config, section = read_config(origin.parent), params.rounds[round_name]
    teacher, tokens = read_config(origin.teacher), params.evaluate.latency_tokens
    useful = None
    if solves_vocabulary(section, config):
        useful = most_kept(read_json(origin.parent / "tokenizer.json"), occurrences(origin, config), config)
    target = causal_shape(f"params.yaml: rounds.{round_name}", section, config, teacher, tokens, useful)
    model, calibration = load_causal_lm(origin.parent), load_blocks(origin.tokens, "calibration")
    criterion, label = params.prune.criterion, f"prune@{round_name}"
    statistics = BlockCalibration(model, calibration, device, params.seed, label)
    scores = CRITERIA[criterion](statistics)
    ranking = Ranking(criterion, scores, statistics.influences, "layer_block_influence")
    if params.prune.depth == "harm":
        nats = partial(nats_without, model, calibration[:DEPTH_BLOCKS], device, f"{label} depth")
        ranking = Ranking(criterion, scores, nats, "layer_block_nll_nats_per_token")
    measure, merge = BlockMeasure(teacher, tokens, useful), params.prune.merge_heads
    cutter = CausalLMCutter(round_name, origin, out, model, measure, ranking, merge)
    more = {"budget": section.budgets} if section.budgets else {}
    record, total = cutter.cut(target, out, lambda _student: more)
    return Pruned({"shape_after": record["shape_after"], "params_total": total}, out / "model")


def nats_without(model: Any, calibration: Blocks, device: Device, label: str, candidates: Sequence[set[int]]) -> list[float]:
    """Return the nats per calibration token without each of some blocks of layers; `label` names the progress."""
    batches = [calibration[at : at + BATCH_BLOCKS] for at in range(0, len(calibration), BATCH_BLOCKS)]
    passes = itertools.count(1)
    progress = Progress(label, len(batches) * (1 + len(candidates)), "passes")

    def nats(batch: Blocks) -> float:
        predicted = predict_blocks(model, batch, BATCH_BLOCKS, CHUNK_TOKENS, device)
        progress.update(next(passes))
        return float(predicted.nll_nats_N.sum())

    tried = [without_each(model, candidates, partial(nats, batch))[1] for batch in batches]
    count = calibration.shape[0] * (calibration.shape[1] - 1)
    return [sum(of_batches) / count for of_batches in zip(*tried, strict=True)]


def write_tokens(params: CausalLMParams, origin: Origin, model: Path, out: Path) -> None:
    """Write the documents in a student's own tokens, and the measured text cut where the teacher's blocks are cut.

    The parent's tokens are the teacher's or follow them already.
    """
    end, before = end_id(read_config(model)), end_id(read_config(origin.parent))
    out.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(model, out)
    pack_sets(params.data.model_dump(), read_sets(origin.sets, ["train", *params.measured_sets()]), end, out)
    tokenizer_file = origin.parent / "tokenizer.json"
    for name in params.measured_sets():
        stored = load_segments(origin.tokens, name)
        if stored is not None:
            segments = stored[0]
        else:
            whole = load_blocks(origin.tokens, name)
            segments = segments_of(whole, read_json(tokenizer_file), tokenizer_file, before)
        save_segments(segments, windows_of(segments, out / "tokenizer.json", end, params.data.block_tokens), out, name)
