"""Cuts a classifier to the shape of a round, or to those that its search tries, or masks its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tasks.data.frames import SETS_WITHOUT_CALIBRATION, read_sets
from tasks.data.pairs import texts_of
from tasks.data.tokens import load_tokens, save_tokens, tokenize
from tasks.data.vocabulary import count_pieces, kept_ids, most_kept
from tasks.files import file_sha256, read_json, write_json
from tasks.models.architectures import num_layers
from tasks.models.checkpoint import classifier_from_config, load_classifier, read_config, save_classifier
from tasks.models.devices import Device
from tasks.models.masks import apply_masks, sparsity_of
from tasks.params.classification import ClassificationParams
from tasks.params.rounds import Round
from tasks.pruning.calibration import Labels
from tasks.pruning.criteria import CRITERIA
from tasks.pruning.cut import CANDIDATES, MASKS_FILE, Cutter, Origin, Pruned, Ranking, student_of
from tasks.pruning.depth import blocks
from tasks.pruning.planner import Candidate
from tasks.pruning.planning import Measure, searched_shapes, solves_vocabulary, target_shape
from tasks.pruning.shapes import Plan
from tasks.pruning.weight_scores import WeightCalibration, make_masks


class ClassifierCutter(Cutter):
    """Cuts classifiers, whose first layer alone stays in any case."""

    save = staticmethod(save_classifier)

    def student(self, plan: Plan) -> Any:
        return student_from_plan(self.origin.parent, plan)

    def pieces(self, size: int) -> list[int]:
        """Return the ids to keep by how often they occur in the rows that students learn from, and by the tokenizer's order."""
        config: dict[str, Any] = self.model.config.to_dict()
        tokenizer = read_json(self.origin.parent / "tokenizer.json")
        return kept_ids(tokenizer, occurrences(self.origin, config), size, config, self.ranking.prior)

    def blocks(self, num_kept: int) -> list[set[int]]:
        return blocks(num_layers(self.model), num_kept)


def occurrences(origin: Origin, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return how often each id occurs in the rows that students learn from."""
    sets = [load_tokens(origin.tokens / name) for name in ("train", "transfer")]
    train, transfer = (count_pieces(tokens.ids, int(config["vocab_size"])) for tokens in sets)
    return train + transfer


def student_from_plan(parent: Path, plan: Plan) -> Any:
    """Return the pruned classifier that follows from the parent's folder and a plan, bit for bit."""
    return student_of(parent, plan, classifier_from_config)


def prune(params: ClassificationParams, round_name: str, origin: Origin, out: Path, device: Device) -> Pruned:
    """Write model/ and plan.json of a round, its scores and masks; of a search all candidates, and plan.json lists them."""
    config, section = read_config(origin.parent), params.rounds[round_name]
    useful = None
    if solves_vocabulary(section, config):
        useful = most_kept(read_json(origin.parent / "tokenizer.json"), occurrences(origin, config), config)
    measure = Measure(read_config(origin.teacher), len(params.data.labels), params.evaluate.latency_tokens, useful)
    where = f"params.yaml: rounds.{round_name}"
    searched = searched_shapes(where, section, config, measure) if section.search else []
    shapes = [candidate.shape for candidate in searched] or [target_shape(where, section, config, measure)]
    model, criterion = load_classifier(origin.parent), section.criterion or params.prune.criterion
    by_harm = params.prune.depth == "harm"
    counts = sorted({shape["layers"] for shape in shapes}) if by_harm else []
    could_go = [block for count in counts for block in blocks(num_layers(model), count) if block]
    rows, labels = load_tokens(origin.tokens / "calibration"), calibration_labels(origin.sets)
    statistics = WeightCalibration(model, rows, labels, device, params.seed, could_go, f"prune@{round_name}")
    scores = CRITERIA[criterion](statistics)
    missed, key = (statistics.influences, "layer_block_influence")
    if by_harm:
        missed, key = (statistics.harms, "layer_block_harm_nats_per_row")
    ranking = Ranking(criterion, scores, missed, key, params.prune.vocabulary_prior)
    cutter = ClassifierCutter(round_name, origin, out, model, measure, ranking, params.prune.merge_heads)
    if section.search:
        return _cut_candidates(cutter, searched, section, section.search.keep)

    def change(student: Any) -> dict[str, Any]:
        more: dict[str, Any] = {"budget": section.budgets} if section.budgets else {}
        if section.measured is not None:
            more["measured"] = section.measured.model_dump()
        if section.granularity != "structured":
            more["masks"] = _mask(student, make_masks(statistics, section, criterion), section, out)
        return more

    record, total = cutter.cut(shapes[0], out, change)
    return Pruned({"shape_after": record["shape_after"], "params_total": total}, out / "model")


def _cut_candidates(cutter: Cutter, searched: list[Candidate], section: Round, keep: int) -> Pruned:
    """Write candidates/<number>/ for each shape, and plan.json, which lists them."""
    listed: list[dict[str, Any]] = []
    folder = cutter.out / CANDIDATES
    for number, candidate in enumerate(searched, start=1):
        record, total = cutter.cut(candidate.shape, folder / str(number), lambda _student: {})
        facts = {"shape_after": record["shape_after"], "params_total": total, "size": candidate.size, "loss": candidate.loss}
        listed.append({"candidate": number, **facts, "model_sha256": record["model_sha256"]})
    common = {key: record[key] for key in ("criterion", "parent_sha256", "scores_sha256", "shape_before")}
    write_json(cutter.out / "plan.json", {**common, "budget": section.budgets, CANDIDATES: listed})
    return Pruned({CANDIDATES: listed}, folder / "1" / "model", len(listed), keep)


def _mask(student: Any, masks: dict[str, torch.Tensor], section: Round, out: Path) -> dict[str, Any]:
    """Mask the student, write masks.safetensors (1 = keep), and return what plan.json says of it."""
    apply_masks(student, masks)
    save_file({name: mask.to(torch.uint8) for name, mask in masks.items()}, out / MASKS_FILE)
    return {
        "granularity": section.granularity,
        "pattern": section.pattern,
        "schedule": section.schedule,
        "final_sparsity_of_masked": section.sparsity,
        "masks_sha256": file_sha256(out / MASKS_FILE),
        **sparsity_of(masks, student.num_parameters()),
    }


def calibration_labels(sets: Path) -> Labels:
    """Return the label of each calibration row, which has it as a row of the training set; int64."""
    frames = read_sets(sets, ["train", "calibration"])
    by_row = frames["train"].set_index("row_id")["label"]
    return by_row.loc[frames["calibration"]["row_id"]].to_numpy(dtype=np.int64)


def write_tokens(params: ClassificationParams, origin: Origin, model: Path, out: Path) -> None:
    """Write every set in the tokens of a student."""
    names = [*SETS_WITHOUT_CALIBRATION, *params.data.further_sets, "calibration"]
    for name, frame in read_sets(origin.sets, names).items():
        tokens = tokenize(texts_of(frame), model / "tokenizer.json", params.data.max_tokens)
        save_tokens(tokens, out / name)
