"""Recovers a pruned language model: it imitates the original teacher, which runs beside it, on the training blocks.

deps: rounds/<round>/{pruned,tokens}, the teacher, teacher_logits | params: seed, distill, rounds.<round>
outs: rounds/<round>/trained
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.data.blocks import load_blocks
from tasks.data.vocabulary import kept_at_teacher
from tasks.models.causal_lm import without_dropout
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import Device, pick_for_training
from tasks.params.causal_lm import CausalLMParams
from tasks.running.stage import InPath, OutPath
from tasks.training.causal_lm import Plan, head_dtype, train_blocks
from tasks.training.chunked_loss import Recipe
from tasks.training.hidden import fixed_weight
from tasks.training.teacher_cache import check_teacher
from tasks.training.token_states import token_match
from tasks.training.top_k import CachedTopK


def run(
    params: CausalLMParams,
    *,
    round: str,
    pruned: InPath,
    search: InPath,  # noqa: ARG001 - of classifiers alone
    tokens: InPath,
    sets: InPath,  # noqa: ARG001 - their blocks are in `tokens`
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the training, with the device it ran on."""
    device = pick_for_training(params.runtime)
    student = load_causal_lm(pruned / "model")
    summary = distil(
        params, round, student, pruned / "model", (tokens, logits, teacher), out, device, f"distill@{round}"
    )
    return {**summary, **device.facts()}


def distil(
    params: CausalLMParams,
    round_name: str,
    student: Any,
    start: Path,
    places: tuple[Path, Path, Path],
    out: Path,
    device: Device,
    stage: str,
) -> dict[str, Any]:
    """Train the student with the budget of a round, write `out` as `BlockKeeper.finish` does, and return its summary.

    `start` is the folder that decides the student's shape; `places` are the blocks, the fingerprint and the teacher; `stage` is
    whose training it is. The teacher is given the student's tokens by their ids there, and answers in them alone. Raises
    DataError when the student has a token that the teacher has not.
    """
    tokens, fingerprint, teacher = places
    check_teacher(fingerprint, teacher)
    section, budget = params.distill, params.rounds[round_name]
    recipe = Recipe(section.loss, section.temperature, section.kd_weight, section.chunk_tokens, head_dtype(device))
    plan = Plan(stage, section, budget.learning_rate, budget.train_tokens, tokens, [start, teacher])
    student = without_dropout(student)
    if section.cache is not None:
        cached = CachedTopK(fingerprint, tokens / "train.npy", section.cache.top_k)
        return train_blocks(params, plan, student, None, recipe, out, device, cached=cached)
    beside, kept_V = load_causal_lm(teacher), kept_at_teacher(tokens, teacher)
    states = None
    if section.hidden is not None:
        states = token_match(
            student,
            beside,
            load_blocks(tokens, "train"),
            device,
            kept_V,
            name=section.hidden.loss,
            weight=fixed_weight(section.hidden.weight),
            until_share=section.hidden.until_share,
        )
    return train_blocks(params, plan, student, beside, recipe, out, device, kept_V, states=states)
