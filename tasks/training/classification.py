"""Which rows a round trains on, in which order: labelled and transfer rows in one list of batches.

Rows are numbered through: first the training set, then the transfer set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import TokenSet, collate, load_tokens, rows_of, shuffled_buckets
from tasks.files import digest
from tasks.models.architectures import leave_out_unread
from tasks.models.checkpoint import attend_plainly, pad_id
from tasks.models.devices import Device
from tasks.models.masks import GROWN_AFTER, SCHEDULES, Masker
from tasks.params.classification import ClassificationParams
from tasks.progress import Progress
from tasks.training.extra_losses import Batch, Extras, make_extras
from tasks.training.hidden import weighed
from tasks.training.keeper import Keeper
from tasks.training.loop import Rows, Schedule, train
from tasks.training.losses import distillation_loss
from tasks.training.scratch import Scratch, scratch_key
from tasks.training.teacher_cache import CACHED_SETS, CHECKPOINT_SET, load_checkpoint_logits, load_logits


def joined(first: TokenSet, second: TokenSet) -> TokenSet:
    """Return the two sets as one, the rows of the first before those of the second."""
    ids = np.concatenate([first.ids, second.ids])
    return TokenSet(ids, np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]))


def plan_batches(
    lengths: Rows, num_train: int, labelled_epochs: int, transfer_epochs: float, batch_rows: int, seed: int
) -> list[Rows]:
    """Return the batches of a distillation, in order; the same for the same arguments.

    Both kinds of rows are spread evenly over the training, so every part of it sees the same mixture: a student that ends
    on labelled rows alone over-fits the teacher's logits there, which are surer than the teacher is.
    """
    rng = np.random.default_rng(seed)
    labelled = _stream(np.arange(num_train), float(labelled_epochs), rng)
    transfer = _stream(np.arange(num_train, len(lengths)), transfer_epochs, rng)
    passes = max(1, int(np.ceil(max(labelled_epochs, transfer_epochs))))
    batches: list[Rows] = []
    for parts in zip(np.array_split(labelled, passes), np.array_split(transfer, passes), strict=True):
        rows = np.concatenate(parts)
        batches += [rows[batch] for batch in shuffled_buckets(lengths[rows], batch_rows, rng)]
    return batches


def spread_rows(batches: list[Rows], count: int) -> Rows:
    """Return at most `count` of the rows of the batches, each once, in order and evenly spread over them."""
    rows = np.unique(np.concatenate(batches)) if batches else np.zeros(0, dtype=np.int64)
    if len(rows) > count:
        rows = rows[np.arange(count) * len(rows) // count]
    return rows


def _stream(rows: Rows, epochs: float, rng: np.random.Generator) -> Rows:
    """Return `epochs` x `rows`, shuffled epoch by epoch; of a broken last epoch the share asked for."""
    turns = [rng.permutation(rows) for _ in range(int(np.ceil(epochs)))]
    return np.concatenate([rows[:0], *turns])[: round(epochs * len(rows))]


LEARNT_ROWS = 1000  # on which a checkpoint is measured beside the validation rows


def _key(params: ClassificationParams, name: str, inputs: Sequence[Path], device: Device) -> str:
    """Return the key of the scratch in which a round trains."""
    return scratch_key(
        {
            "inputs": [digest(path)["sha256"] for path in inputs],
            "seed": params.seed,
            "distill": params.distill.model_dump(),
            "round": params.rounds[name].model_dump(),
            "device": device.facts(),
            "torch": torch.__version__,
        }
    )


def distil(
    params: ClassificationParams,
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
        data.lengths,
        len(frames["train"]),
        budget.labelled_epochs,
        budget.transfer_epochs,
        params.distill.batch_rows,
        params.seed,
    )
    learnt = spread_rows(batches, LEARNT_ROWS)
    inputs = (tokenizer, tokens, sets, logits, teacher)
    with device.processes.in_turn():
        scratch = Scratch(stage, _key(params, round_name, inputs, device))
    keeper = Keeper(
        scratch,
        load_tokens(tokens / CHECKPOINT_SET),
        frames[CHECKPOINT_SET]["label"].to_numpy(dtype=np.int64),
        params.distill.batch_rows,
        device,
        teacher_logits=load_checkpoint_logits(logits, frames),
        learnt=(rows_of(data, learnt), teacher_logits[learnt]),
    )
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
        student,
        batches,
        _loss_of(params, data, teacher_logits, labels, device, extras),
        on_checkpoint,
        _schedule(params, round_name),
        device,
        scratch,
        lambda step, loss: progress.update(step, loss=loss),
        beside=extras.module,
        on_begin=on_begin,
        on_update=masker.apply if masker else lambda: None,
    )
    summary = keeper.finish(student, tokenizer, out, int(sum(data.lengths[rows].sum() for rows in batches)))
    scratch.remove()
    return summary


def _loss_of(
    params: ClassificationParams,
    data: TokenSet,
    teacher_logits: Any,
    labels: Rows,
    device: Device,
    extras: Extras | None = None,
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
            outputs.logits,
            teacher[chosen],
            targets[chosen],
            loss=params.distill.loss,
            temperature=params.distill.temperature,
            kd_weight=params.distill.kd_weight,
        )
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


def _schedule(params: ClassificationParams, round_name: str) -> Schedule:
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
