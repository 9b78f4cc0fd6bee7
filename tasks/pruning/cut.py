"""Cuts a parent to a shape by what a criterion says of it; what differs by task is in `classification` and `causal_lm`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from tasks.data.vocabulary import is_wordpiece, renumbered, renumbered_generation, smaller_settings, smaller_tokenizer
from tasks.errors import ParamsError
from tasks.files import file_sha256, read_json, write_json
from tasks.models.architectures import adapter_of, num_layers
from tasks.models.checkpoint import copy_tokenizer, load_weights, read_config
from tasks.progress import say
from tasks.pruning.criteria import Scores, keep_best
from tasks.pruning.merging import merges
from tasks.pruning.planning import Measure
from tasks.pruning.shapes import Plan
from tasks.pruning.slicing import slice_weights

Missed = Callable[[list[set[int]]], list[float]]  # how much the model would miss each block of layers
Change = Callable[[Any], dict[str, Any]]  # of a student before it is written; what it returns stands in plan.json
SCORES_FILE: Final = "scores.safetensors"
MASKS_FILE: Final = "masks.safetensors"
CANDIDATES: Final = "candidates"  # of a round with `search`: the folder below its pruned/, and the key in plan.json


@dataclass(frozen=True)
class Origin:
    """What a round is cut from, folder by folder: its parent, that one's tokens, the sets, and the teacher as it was fetched."""

    parent: Path
    tokens: Path
    sets: Path
    teacher: Path


@dataclass(frozen=True)
class Pruned:
    """What came of it: the facts of the stage, the student's folder (the first candidate's), and how many a search has."""

    facts: dict[str, Any]
    model: Path
    candidates: int = 0
    keep: int = 0


@dataclass(frozen=True)
class Ranking:
    """What a criterion says of a parent: its scores, and how much each block of layers is missed, as plan.json names it.

    Of a vocabulary `prior` is the weight of the tokenizer's own order beside how often pieces occur, None for none.
    """

    criterion: str
    scores: Scores
    missed: Missed
    missed_key: str
    prior: float | None = None


@dataclass(frozen=True)
class Cutter(ABC):
    """Cuts a parent to shapes, all by the same ranking; which layers go is measured once for each number of them."""

    round: str
    origin: Origin
    out: Path
    model: Any
    measure: Measure
    ranking: Ranking
    merge: bool
    chosen: dict[int, tuple[list[int], dict[str, float]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Write the scores by which it cuts."""
        self.out.mkdir(parents=True, exist_ok=True)
        scores = {name: values.float().contiguous() for name, values in vars(self.ranking.scores).items()}
        save_file(scores, self.out / SCORES_FILE)

    @abstractmethod
    def student(self, plan: Plan) -> Any:
        """Return the student that follows from the parent and a plan."""

    @abstractmethod
    def save(self, model: Any, tokenizer_folder: Path, out: Path) -> None:
        """Write a student as a stock Hugging Face folder, with the tokenizer of another."""

    @abstractmethod
    def pieces(self, size: int) -> list[int]:
        """Return the ids to keep of a vocabulary that is cut to a size."""

    @abstractmethod
    def blocks(self, num_kept: int) -> list[set[int]]:
        """Return the blocks of layers of which one may go, so that so many layers stay."""

    def cut(self, target: dict[str, int], folder: Path, change: Change) -> tuple[dict[str, Any], int]:
        """Write model/ and plan.json below `folder`; return the plan's record and the parameters of the student.

        A vocabulary that is cut keeps nothing that the data never have: it may be smaller than the target's, which is said, and
        so may the parent's have been.
        """
        parent, count = self.origin.parent, target["layers"]
        config = read_config(parent)
        adapter, size = adapter_of(config), int(config["vocab_size"])
        asked = target["vocabulary"]
        pieces = list(range(size)) if asked >= size else self.pieces(asked)
        target, more = {**target, "vocabulary": len(pieces)}, {}
        if len(pieces) < asked:
            more = {"vocabulary_asked": asked}
            say(f"{self.round}: vocabulary: {asked:,} asked, {len(pieces):,} kept: no other piece occurs or is needed to spell")
        if count not in self.chosen:
            self.chosen[count] = choose_layers(num_layers(self.model), self.blocks(count), self.ranking.missed)
        layers, missed = self.chosen[count]
        scores = with_shared_heads(self.ranking.scores, layers) if adapter.same_heads else self.ranking.scores
        plan = make_plan(scores, layers, target, pieces, adapter.head_groups(config), self.merge)
        student = self.student(plan)
        more |= change(student)
        self.save(student, parent, folder / "model")
        write_tokenizer(parent, plan, folder / "model")
        record = {
            "criterion": self.ranking.criterion,
            "parent_sha256": file_sha256(parent / "model.safetensors"),
            "scores_sha256": file_sha256(self.out / SCORES_FILE),
            "model_sha256": file_sha256(folder / "model" / "model.safetensors"),
            "shape_before": adapter.shape(config),
            "shape_after": plan.shape(),
            "keep": plan.to_json(),
        }
        write_json(folder / "plan.json", {**record, self.ranking.missed_key: missed, **more})
        total = self.measure.parameters(config, target)
        assert total == student.num_parameters(), "the plan's arithmetic and the model disagree"
        say(f"{self.round}: {self.model.num_parameters():,} -> {total:,} parameters; layers kept: {layers}")
        return record, total


def choose_layers(total: int, candidates: list[set[int]], missed: Missed) -> tuple[list[int], dict[str, float]]:
    """Return the layers to keep, those without the block that is missed least, and how much each block is missed."""
    if candidates == [set()]:
        return list(range(total)), {}
    losses = missed(candidates)
    least = candidates[min(range(len(candidates)), key=losses.__getitem__)]
    named = {",".join(map(str, sorted(block))): loss for block, loss in zip(candidates, losses, strict=True)}
    return [layer for layer in range(total) if layer not in least], named


def with_shared_heads(scores: Scores, layers: list[int]) -> Scores:
    """Return the scores with those of a head summed over the layers that stay, for families whose layers keep the same heads."""
    total_H = scores.heads_LH[layers].double().sum(dim=0).float()
    return replace(scores, heads_LH=total_H.expand_as(scores.heads_LH))


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


def student_of(parent: Path, plan: Plan, from_config: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the pruned model that follows from the parent's folder and a plan, bit for bit; `from_config` makes its class."""
    config = read_config(parent)
    adapter = adapter_of(config)
    if adapter.same_heads and any(heads != plan.heads[0] for heads in plan.heads):
        raise ParamsError(
            f"plan.json: keep.heads: layers keep other heads, and a stock {config['model_type']} model has one table for the "
            "heads of all layers; keep the same ones in each"
        )
    weights = load_file(parent / "model.safetensors")
    student = from_config(renumbered(adapter.resized(config, plan.shape(), plan.layers), plan.vocabulary))
    load_weights(student, slice_weights(weights, adapter.layout(config), plan, adapter.head_size(config)))
    return student


def write_tokenizer(parent: Path, plan: Plan, out: Path) -> None:
    """Write a student's tokenizer in the forms stock classes read: tokenizer.json, vocab.txt, and its settings.

    A byte-level one of which all stays is left as `save_classifier` or `save_causal_lm` copied it. What its makers set for
    generating stays, with the student's ids.
    """
    generation = parent / "generation_config.json"
    if generation.exists() and not (chosen := read_json(generation)).get("_from_model_config"):
        write_json(out / generation.name, renumbered_generation(chosen, plan.vocabulary))
    tokenizer = read_json(parent / "tokenizer.json")
    wordpiece = is_wordpiece(tokenizer)
    if not wordpiece and len(plan.vocabulary) == int(read_config(parent)["vocab_size"]):
        return
    copy_tokenizer(parent, out)
    tokenizer = smaller_tokenizer(tokenizer, plan.vocabulary)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1), encoding="utf-8")
    if wordpiece:
        (out / "vocab.txt").write_text("\n".join(tokenizer["model"]["vocab"]) + "\n", encoding="utf-8")  # in order
    elif (out / "tokenizer_config.json").exists():
        write_json(out / "tokenizer_config.json", smaller_settings(read_json(out / "tokenizer_config.json"), plan.vocabulary))
