"""How a language model is trained on blocks, alone or to imitate a teacher: what `teacher` and `distill` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.causal.batches import block_batch
from tasks.data.blocks import Rows, load_blocks, plan_blocks
from tasks.data.top_k import CachedTopK
from tasks.distillation.causal import Head, Recipe, causal_loss, next_tokens, predicting_beside
from tasks.distillation.hidden import weighed
from tasks.distillation.top_k import TopK
from tasks.distillation.train import Schedule, train
from tasks.lineage.files import digest
from tasks.lineage.scratch import Scratch, scratch_key
from tasks.models.block_keeper import BlockKeeper
from tasks.models.devices import Device
from tasks.models.token_states import TokenMatch
from tasks.params_causal import CausalParams, Training
from tasks.progress import Progress


@dataclass(frozen=True)
class Plan:
    """One training: its stage, section of params, learning rate, budget in tokens, and what it depends on besides.

    `tokens` is the folder of blocks with their tokenizer, `inputs` the files that decide the result.
    """

    stage: str
    section: Training
    learning_rate: float
    train_tokens: int
    tokens: Path
    inputs: Sequence[Path]


def train_blocks(
    params: CausalParams, plan: Plan, model: Any, teacher: Any, recipe: Recipe, out: Path, device: Device,
    kept_V: torch.Tensor | None = None, cached: CachedTopK | None = None, states: TokenMatch | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `model` in place, write `out` as `BlockKeeper.finish` does, and return its summary.

    It imitates `teacher`, which runs beside it, or what is `cached` of one; with neither it learns from the text alone.
    `kept_V` is the teacher's id of each of the student's tokens, None where they are the same. `states` is an extra loss
    on the layers of both.
    """
    blocks, section = load_blocks(plan.tokens, "train"), plan.section
    batches = plan_blocks(len(blocks), plan.train_tokens, blocks.shape[1], section.batch_blocks, params.seed)
    if cached is not None:
        cached.check(batches)
    key = scratch_key(
        {"inputs": [digest(path)["sha256"] for path in (*plan.inputs, plan.tokens)], "seed": params.seed,
         "section": section.model_dump(), "budget": [plan.learning_rate, plan.train_tokens], "device": device.facts(),
         "torch": torch.__version__}
    )  # fmt: skip
    with device.processes.in_turn():
        scratch = Scratch(plan.stage, key)
    validation = load_blocks(plan.tokens, "validation")
    keeper = BlockKeeper(scratch, validation, section.batch_blocks, section.chunk_tokens, device)
    progress = Progress(plan.stage, len(batches))
    schedule = Schedule(
        learning_rate=plan.learning_rate, warmup_share=section.warmup_share, weight_decay=section.weight_decay,
        max_gradient_norm=section.max_gradient_norm, checkpoints=section.checkpoints, seed=params.seed,
        accumulate=section.accumulate,
    )  # fmt: skip
    if teacher is not None:
        device.prepare_to_read(teacher)
        kept_V = kept_V if kept_V is None else kept_V.to(device.device)

    def batch_loss(student: Any, rows: Rows) -> torch.Tensor:
        ids_BT = block_batch(blocks, rows, device)
        extra = states if states is not None and states.active else None
        ours, theirs = (None, None) if extra is None else extra.layers
        other: Head | TopK | None = None if cached is None else cached.of(rows, device.device)
        told_BTE = None
        if teacher is not None:
            with torch.no_grad():
                other, told_BTE = predicting_beside(teacher, ids_BT, theirs, kept_V)
        head, states_BTD = predicting_beside(student, ids_BT, ours)
        loss = causal_loss(head, other, next_tokens(ids_BT), recipe)
        if extra is None or states_BTD is None or told_BTE is None:  # states are those of a teacher beside
            return loss
        with torch.autocast(device.device.type, enabled=False):  # of small differences bf16 would leave little
            found = extra.loss(states_BTD, told_BTE)
        return loss + weighed(loss, found, extra.weight, device.processes.mean)

    train(model, batches, batch_loss, keeper.checkpoint, schedule, device, scratch,
          lambda step, loss: progress.update(step, loss=loss), beside=None if states is None else states.projection,
          on_begin=(lambda _share: None) if states is None else states.begin)  # fmt: skip
    summary = keeper.finish(model, plan.tokens, out, sum(map(len, batches)) * blocks.shape[1])
    scratch.remove()
    return summary
