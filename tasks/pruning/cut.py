""""""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tasks.data.tokens import load_tokens
from tasks.data.vocabulary import (
    count_pieces,
    is_wordpiece,
    kept_ids,
    pieces_in_order,
    renumbered,
    smaller_settings,
    smaller_tokenizer,
)
from tasks.errors import ParamsError
from tasks.files import file_sha256, read_json, write_json
from tasks.models.architectures import adapter_of, num_layers
from tasks.models.checkpoint import classifier_from_config, copy_tokenizer, read_config, save_classifier
from tasks.progress import say
from tasks.pruning.criteria import Scores, keep_best
from tasks.pruning.depth import blocks
from tasks.pruning.merging import merges
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights

Missed = Callable[[list[set[int]]], list[float]]  # how much the model would miss each block of layers
MASKS_FILE = "masks.safetensors"
CANDIDATES = "candidates"  # of a round with `search`: the folder below its pruned/, and the key in plan.json


@dataclass(frozen=True)
class Cutter:
    """Cuts a parent to shapes, all by the same scores, which lie in `out`; which layers go is measured once for each number."""

    round: str
    parent: Path
    tokens: Path
    out: Path
    model: Any
    scores: Scores
    criterion: str
    classes: int
    told: str  # what plan.json calls `missed`
    missed: Missed
    merge: bool
    chosen: dict[int, tuple[list[int], dict[str, float]]] = field(default_factory=dict)

    def cut(
        self, target: dict[str, int], folder: Path, change: Callable[[Any], dict[str, Any]]
    ) -> tuple[dict[str, Any], int]:
        """Write model/ and plan.json below `folder`; return the plan's record and the parameters of the student.

        `change` may change the student before it is written, and returns what plan.json says of it.
        """
        config = read_config(self.parent)
        adapter = adapter_of(config)
        before = adapter.shape(config)
        if target["layers"] not in self.chosen:
            self.chosen[target["layers"]] = choose_layers(num_layers(self.model), target["layers"], self.missed)
        layers, missed = self.chosen[target["layers"]]
        pieces = _kept_pieces(self.parent, self.model.config.to_dict(), self.tokens, target["vocabulary"])
        plan = make_plan(self.scores, layers, target, pieces, adapter.head_groups(config), self.merge)
        student = student_from_plan(self.parent, plan)
        more = change(student)
        save_classifier(student, self.parent, folder / "model")
        write_tokenizer(self.parent, plan, folder / "model")
        record = plan_record(self.criterion, plan, self.parent, folder, before, self.out / "scores.safetensors")
        write_json(folder / "plan.json", {**record, self.told: missed, **more})
        total: int = adapter.count_parameters(config, target, self.classes)["total"]
        assert total == student.num_parameters(), "the plan's arithmetic and the model disagree"
        say(f"{self.round}: {self.model.num_parameters():,} -> {total:,} parameters; layers kept: {layers}")
        return record, total


def choose_layers(total: int, count: int, missed: Missed) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep, `count` of `total`, and how much each block that could go is missed."""
    candidates = blocks(total, count)
    if candidates == [set()]:
        return list(range(total)), {}
    return least_missed(total, candidates, missed(candidates))


def least_missed(total: int, candidates: list[set[int]], missed: list[float]) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep, those without the block that is missed least, and how much each block is missed."""
    best = candidates[min(range(len(candidates)), key=missed.__getitem__)]
    named = {",".join(map(str, sorted(one))): value for one, value in zip(candidates, missed, strict=True)}
    return [layer for layer in range(total) if layer not in best], named


def make_plan(
    scores: Scores, layers: list[int], target: dict[str, int], pieces: list[int], head_groups: int, merge: bool = False
) -> Plan:
    """Return what is kept along each axis to reach the target shape; of each group of heads the same number.

    With `merge` heads that go are added to some that stay; ParamsError when less than half of them stay.
    """
    heads, total = target["heads"], scores.heads_LH.shape[1]
    merged: list[list[list[int]]] = []
    if merge and heads < total:
        if 2 * heads < total:
            raise ParamsError(
                f"params.yaml: prune.merge_heads: {heads} of {total} heads stay, and merging needs at least half; keep more "
                "heads, go there in more rounds, or set prune.merge_heads: false"
            )
        merged = [merges(scores.heads_LH[layer], heads, head_groups) for layer in layers]
    return Plan(
        vocabulary=pieces,
        hidden=keep_best(scores.hidden_D, target["hidden"]),
        layers=layers,
        heads=[keep_best(scores.heads_LH[layer], target["heads"], head_groups) for layer in layers],
        ffn=[keep_best(scores.ffn_LF[layer], target["ffn"]) for layer in layers],
        pooler=keep_best(scores.pooler_D, target["hidden"]) if len(scores.pooler_D) else [],
        merged=merged,
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


def named_scores(scores: Scores) -> dict[str, torch.Tensor]:
    """Return the scores by axis, ready to be saved."""
    return {name: tensor.float().contiguous() for name, tensor in vars(scores).items()}


def plan_record(
    criterion: str, plan: Plan, parent: Path, out: Path, before: dict[str, int], scores: Path | None = None
) -> dict[str, Any]:
    """Return what plan.json says of a plan, besides the harm of each block of layers; `scores` is scores.safetensors of `out`
    unless given.
    """
    return {
        "criterion": criterion,
        "parent_sha256": file_sha256(parent / "model.safetensors"),
        "scores_sha256": file_sha256(scores or out / "scores.safetensors"),
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
        "shape_before": before,
        "shape_after": plan.shape(),
        "keep": plan.to_json(),
    }
