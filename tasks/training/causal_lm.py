"""How a language model is trained on blocks, alone or to imitate a teacher: what `teacher` and `distill` share.

Blocks on the device, and the precision of the heads: what a language model's training and its teacher's cache share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.blocks import Blocks, Rows, load_blocks, plan_blocks
from tasks.files import digest
from tasks.models.causal_lm import touch_read_rows_alone
from tasks.models.devices import Device
from tasks.models.predict import Head, next_tokens, output_weight, predicting_beside
from tasks.params.causal_lm import CausalLMParams, Training
from tasks.progress import Progress
from tasks.training.attention import attend_in_short_blocks
from tasks.training.chunked_loss import Recipe, causal_loss
from tasks.training.hidden import weighed
from tasks.training.keeper import BlockKeeper
from tasks.training.loop import Schedule, train
from tasks.training.scratch import Scratch, scratch_key
from tasks.training.token_states import TokenMatch
from tasks.training.top_k import CachedTopK, TopK


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
    params: CausalLMParams,
    plan: Plan,
    model: Any,
    teacher: Any,
    recipe: Recipe,
    out: Path,
    device: Device,
    kept_V: torch.Tensor | None = None,
    cached: CachedTopK | None = None,
    states: TokenMatch | None = None,
) -> dict[str, Any]:
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
        {
            "inputs": [digest(path)["sha256"] for path in (*plan.inputs, plan.tokens)],
            "seed": params.seed,
            "section": section.model_dump(),
            "budget": [plan.learning_rate, plan.train_tokens],
            "device": device.facts(),
            "torch": torch.__version__,
        }
    )
    with device.processes.in_turn():
        scratch = Scratch(plan.stage, key)
    validation = load_blocks(plan.tokens, "validation")
    keeper = BlockKeeper(scratch, validation, section.batch_blocks, section.chunk_tokens, device)
    progress = Progress(plan.stage, len(batches))
    schedule = Schedule(
        learning_rate=plan.learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        max_gradient_norm=section.max_gradient_norm,
        checkpoints=section.checkpoints,
        seed=params.seed,
        accumulate=section.accumulate,
    )
    loss = blocks_loss(
        model,
        teacher,
        recipe,
        device,
        lambda rows: block_batch(blocks, rows, device),
        kept_V,
        None if cached is None else lambda rows: cached.of(rows, device.device),
        states,
    )
    train(
        model,
        batches,
        loss,
        keeper.checkpoint,
        schedule,
        device,
        scratch,
        lambda step, loss: progress.update(step, loss=loss),
        beside=None if states is None else states.projection,
        on_begin=(lambda _share: None) if states is None else states.begin,
    )
    summary = keeper.finish(model, plan.tokens, out, sum(map(len, batches)) * blocks.shape[1])
    scratch.remove()
    return summary


def blocks_loss(
    model: Any,
    teacher: Any,
    recipe: Recipe,
    device: Device,
    batch_of: Callable[[Rows], torch.Tensor],
    kept_V: torch.Tensor | None = None,
    cached_of: Callable[[Rows], TopK] | None = None,
    states: TokenMatch | None = None,
) -> Callable[[Any, Rows], torch.Tensor]:
    """Return the function (model, rows) -> loss of the training loop; see `train_blocks`. Both models are made ready for it.

    `batch_of` gives the tokens (B, T) of some rows, `cached_of` what a teacher said of them.
    """
    if teacher is not None:
        device.prepare_to_read(teacher)
        attend_in_short_blocks(teacher, device)
        kept_V = None if kept_V is None else kept_V.to(device.device)
        told_VD = output_weight(teacher, kept_V).detach().to(recipe.dtype)  # once: it does not change
    attend_in_short_blocks(model, device)
    alone = device.processes.count == 1
    if alone:
        touch_read_rows_alone(model)

    def batch_loss(student: Any, rows: Rows) -> torch.Tensor:
        ids_BT = batch_of(rows)
        extra = states if states is not None and states.active else None
        layer, told_layer = (None, None) if extra is None else extra.layers
        other: Head | TopK | None = None if cached_of is None else cached_of(rows)
        told_BTE = None
        if teacher is not None:
            with torch.no_grad():
                other, told_BTE = predicting_beside(teacher, ids_BT, told_layer, kept_V, told_VD)
        head, states_BTD = predicting_beside(student, ids_BT, layer)
        loss = causal_loss(replace(head, adds_itself=alone), other, next_tokens(ids_BT), recipe)
        if extra is None or states_BTD is None or told_BTE is None:  # states are those of a teacher beside
            return loss
        with torch.autocast(device.device.type, enabled=False):  # of small differences bf16 would leave little
            found = extra.loss(states_BTD, told_BTE)
        return loss + weighed(loss, found, extra.weight, device.processes.mean)

    return batch_loss


def block_batch(blocks: Blocks, rows: Rows, device: Device) -> torch.Tensor:
    """Return the tokens of these blocks, int64 (B, T), where the arithmetic runs."""
    return torch.from_numpy(np.asarray(blocks[rows], dtype=np.int64)).to(device.device)


def head_dtype(device: Device) -> torch.dtype:
    """Return in which precision the heads' matrix products run."""
    return torch.bfloat16 if device.precision == "bf16" else torch.float32
