"""Recovers a pruned student: it imitates the cached logits of the original teacher, on labelled and transfer rows.

deps: rounds/<round>/{pruned,search,tokens}, data/sets, teacher_logits, rounds/teacher/trained/model (it runs for
distill.relations alone) | params: seed, distill, rounds.<round> | outs: rounds/<round>/trained
A round with `search` has been trained by the stages `trial` and `finish`; here the best finished candidate is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.logits import CACHED_SETS, CHECKPOINT_SET, check_teacher, load_checkpoint_logits, load_logits
from tasks.data.tokens import TokenSet, collate, load_tokens, rows_of
from tasks.distillation.budget import joined, plan_batches, spread_rows
from tasks.distillation.hidden import weighed
from tasks.distillation.losses import distillation_loss
from tasks.distillation.train import Rows, Schedule, train
from tasks.lineage.files import digest, read_json
from tasks.lineage.scratch import Scratch, scratch_key
from tasks.models.architectures import leave_out_unread
from tasks.models.candidates import take_best
from tasks.models.checkpoint import attend_plainly, load_classifier, pad_id
from tasks.models.devices import Device, pick_for_training
from tasks.models.extras import Batch, Extras, make_extras
from tasks.models.keeper import Keeper
from tasks.models.masking import GROWN_AFTER, SCHEDULES, Masker
from tasks.params import Params
from tasks.progress import Progress, say
from tasks.stage import InPath, OutPath

LEARNT_ROWS = 1000  # on which a checkpoint is measured beside the validation rows


def run(
    params: Params,
    *,
    round: str,
    pruned: InPath,
    search: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the training, with its speed and the device it ran on."""
    check_teacher(logits, teacher)
    device = pick_for_training(params.runtime)
    if params.rounds[round].search is not None:
        return {**_best_candidate(params, round, pruned, search, out), **device.facts()}
    student, name = load_classifier(pruned / "model"), f"distill@{round}"
    facts = distil(params, round, student, pruned / "model", tokens, sets, logits, teacher, out, device, name)
    return {**facts, **device.facts()}


def _best_candidate(params: Params, name: str, pruned: Path, search: Path, out: Path) -> dict[str, Any]:
    """Return the summary of the best finished candidate's training, and `search`: search.json, which is written with it."""
    section = params.rounds[name].search
    assert section is not None
    record = take_best(read_json(pruned / "plan.json")["candidates"], section.keep, search, out)
    say(f"{name}: took candidate {record['chosen']} of {len(record['candidates'])}")
    return {**read_json(out / "summary.json"), "search": record}


def _key(params: Params, name: str, inputs: Sequence[Path], device: Device) -> str:
    """Return the key of the scratch in which a round trains."""
    return scratch_key(
        {"inputs": [digest(path)["sha256"] for path in inputs], "seed": params.seed,
         "distill": params.distill.model_dump(), "round": params.rounds[name].model_dump(), "device": device.facts(),
         "torch": torch.__version__}
    )  # fmt: skip


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
    stage: str,
) -> dict[str, Any]:
    """Train the student with the budget of a round, write `out` as `Keeper.finish` does, and return its summary.

    `stage` is whose training it is: the name of its scratch and of its progress.
    """
    frames = read_sets(sets, CACHED_SETS)
    data = joined(load_tokens(tokens / "train"), load_tokens(tokens / "transfer"))
    labels = np.concatenate([frames["train"]["label"], frames["transfer"]["label"]]).astype(np.int64)
    teacher_logits = load_logits(logits, frames)
    budget = params.rounds[round_name]
    batches = plan_batches(
        data.lengths, len(frames["train"]), budget.labelled_epochs, budget.transfer_epochs,
        params.distill.batch_rows, params.seed,
    )  # fmt: skip
    learnt = spread_rows(batches, LEARNT_ROWS)
    inputs = (tokenizer, tokens, sets, logits, teacher)
    with device.processes.in_turn():
        scratch = Scratch(stage, _key(params, round_name, inputs, device))
    keeper = Keeper(
        scratch, load_tokens(tokens / CHECKPOINT_SET), frames[CHECKPOINT_SET]["label"].to_numpy(dtype=np.int64),
        params.distill.batch_rows, device, teacher_logits=load_checkpoint_logits(logits, frames),
        learnt=(rows_of(data, learnt), teacher_logits[learnt]),
    )  # fmt: skip
    _without_dropout(student)
    attend_plainly(student, device.device)
    read = params.distill.hidden is not None or params.distill.relations is not None
    if not read and device.processes.shares is None:  # what it changes does not outlive a copy
        leave_out_unread(student, device.device)
    masker = None if budget.schedule is None else Masker(student, budget.schedule, budget.sparsity or 0.0)
    folders = {"logits": logits, "teacher": teacher, "tokenizer": tokenizer}
    extras = make_extras(params.distill, student, data, frames, folders, device)
    progress = Progress(stage, len(batches))

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
