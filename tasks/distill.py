"""Recovers a pruned student: it imitates the cached logits of the original teacher, on labelled and transfer rows.

deps: rounds/<round>/{pruned,tokens}, data/sets, teacher_logits, rounds/teacher/trained/model (it runs for
distill.relations alone) | params: seed, distill, rounds.<round> | outs: rounds/<round>/trained
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.logits import CACHED_SETS, CHECKPOINT_SET, check_teacher, load_checkpoint_logits, load_logits
from tasks.data.tokens import TokenSet, collate, load_tokens
from tasks.distillation.budget import joined, plan_batches
from tasks.distillation.hidden import weighed
from tasks.distillation.losses import distillation_loss
from tasks.distillation.train import Rows, Schedule, train
from tasks.lineage.files import digest
from tasks.lineage.scratch import Scratch, scratch_key
from tasks.models.checkpoint import attend_plainly, load_classifier, pad_id
from tasks.models.devices import Device, pick
from tasks.models.extras import Batch, Extras, make_extras
from tasks.models.keeper import Keeper
from tasks.models.masking import GROWN_AFTER, SCHEDULES, Masker
from tasks.params import Params
from tasks.progress import Progress
from tasks.stage import InPath, OutPath


def run(
    params: Params,
    *,
    round: str,
    pruned: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the training, with its speed and the device it ran on."""
    check_teacher(logits, teacher)
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    student = load_classifier(pruned / "model")
    facts = distil(params, round, student, pruned / "model", tokens, sets, logits, teacher, out, device, "distill@")
    return {**facts, **device.facts()}


def distil(
    params: Params,
    round_name: str,
    student: Any,
    tokenizer: Path,
    tokens: Path,
    sets: Path,
    logits: Path,
    teacher: Path,
    out: Path,
    device: Device,
    label: str,
) -> dict[str, Any]:
    """Train the student with the budget of a round, write `out` as `Keeper.finish` does, and return its summary."""
    frames = read_sets(sets, CACHED_SETS)
    data = joined(load_tokens(tokens / "train"), load_tokens(tokens / "transfer"))
    labels = np.concatenate([frames["train"]["label"], frames["transfer"]["label"]]).astype(np.int64)
    teacher_logits = load_logits(logits, frames)
    budget = params.rounds[round_name]
    batches = plan_batches(
        data.lengths, len(frames["train"]), budget.labelled_epochs, budget.transfer_epochs,
        params.distill.batch_rows, params.seed,
    )  # fmt: skip
    key = scratch_key(
        {"inputs": [digest(p)["sha256"] for p in (tokenizer, tokens, sets, logits, teacher)], "seed": params.seed,
         "distill": params.distill.model_dump(), "round": budget.model_dump(), "device": device.facts(),
         "torch": torch.__version__}
    )  # fmt: skip
    with device.processes.in_turn():
        scratch = Scratch(f"{label}{round_name}", key)
    keeper = Keeper(
        scratch, load_tokens(tokens / CHECKPOINT_SET), frames[CHECKPOINT_SET]["label"].to_numpy(dtype=np.int64),
        params.distill.batch_rows, device, teacher_logits=load_checkpoint_logits(logits, frames),
    )  # fmt: skip
    _without_dropout(student)
    attend_plainly(student, device.device)
    masker = None if budget.schedule is None else Masker(student, budget.schedule, budget.sparsity or 0.0)
    folders = {"logits": logits, "teacher": teacher, "tokenizer": tokenizer}
    extras = make_extras(params.distill, student, data, frames, folders, device)
    progress = Progress(f"{label}{round_name}", len(batches))

    def on_begin(share: float) -> None:
        extras.begin(share)
        if masker is not None:
            masker.begin(share)

    def on_checkpoint(model: Any, step: int) -> dict[str, Any]:
        if masker is not None:
            masker.apply()  # an average remembers weights that have gone since
        return keeper.checkpoint(model, step)

    train(
        student, batches, _loss_of(params, data, teacher_logits, labels, device, extras), on_checkpoint,
        _schedule(params, round_name), device, scratch, lambda step, loss: progress.update(step, loss=loss),
        beside=extras.module, on_begin=on_begin, on_update=masker.apply if masker else lambda: None,
    )  # fmt: skip
    summary = keeper.finish(student, tokenizer, out, int(sum(data.lengths[rows].sum() for rows in batches)))
    scratch.remove()
    return summary


def _loss_of(
    params: Params, data: TokenSet, teacher_logits: Any, labels: Rows, device: Device, extras: Extras | None = None
) -> Any:
    """Return the function (model, rows) -> loss of the training loop."""
    teacher = torch.from_numpy(teacher_logits).to(device.device)
    targets = torch.from_numpy(labels).to(device.device)

    def batch_loss(model: Any, rows: Rows) -> torch.Tensor:
        ids_BT, mask_BT = (torch.from_numpy(a).to(device.device) for a in collate(data, rows, pad_id(model)))
        chosen = torch.from_numpy(rows).to(device.device)
        active = [] if extras is None else extras.active
        more = {"output_hidden_states": True} if active else {}
        outputs = model(input_ids=ids_BT, attention_mask=mask_BT, **more)
        loss = distillation_loss(
            outputs.logits, teacher[chosen], targets[chosen],
            loss=params.distill.loss, temperature=params.distill.temperature, kd_weight=params.distill.kd_weight,
        )  # fmt: skip
        total = loss
        for extra in active:
            with torch.autocast(device.device.type, enabled=False):  # of small differences bf16 would leave little
                found_B = extra.loss(Batch(rows, ids_BT, mask_BT, outputs.hidden_states))
            total = total + weighed(loss, found_B.mean(), extra.weight, device.processes.mean)
        return total

    return batch_loss


def _without_dropout(model: Any) -> None:
    """Switch dropout off: the teacher's soft targets already keep a small student from over-fitting."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _schedule(params: Params, round_name: str) -> Schedule:
    section = params.distill
    return Schedule(
        learning_rate=params.rounds[round_name].learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        max_gradient_norm=section.max_gradient_norm,
        checkpoints=section.checkpoints,
        seed=params.seed,
        accumulate=section.accumulate,
        average=section.average,
        checkpoints_from=GROWN_AFTER if params.rounds[round_name].schedule in SCHEDULES else 0.0,
    )
