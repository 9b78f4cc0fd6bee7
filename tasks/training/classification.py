"""How classifiers are trained: the teacher on labels, a student on what the teacher says of labelled and transfer rows.

Rows of a student are numbered through: first the training set, then the transfer set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.respelled import respelled, spellings_of
from tasks.data.tokens import TokenSet, joined, load_tokens, rows_of, shuffled_buckets
from tasks.files import file_sha256, read_json
from tasks.models.architectures import freeze, leave_out_unread, num_layers
from tasks.models.checkpoint import attend_plainly, load_classifier, load_teacher, save_classifier
from tasks.models.devices import Device, pick
from tasks.models.masks import GROWN_AFTER, SCHEDULES, Masker
from tasks.models.predict import inputs_of
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.training.extra_losses import Batch, Extras, make_extras
from tasks.training.hidden import weighed
from tasks.training.keeper import RowKeeper, keep_as_it_is
from tasks.training.lesson import Job, Lesson, Student, Texts, schedule_of, without_dropout
from tasks.training.loop import Course, Rows, Schedule
from tasks.training.losses import distillation_loss
from tasks.training.metrics import MOST_RIGHT
from tasks.training.teacher_cache import CACHED_SETS, CHECKPOINT_SET, LEARNT_SETS, load_logits, texts_sha256, write_rows

TEACHER_BATCH_ROWS: Final = 64  # of the teacher's validation rows
LEARNT_ROWS: Final = 1000  # on which a checkpoint is measured beside the validation rows
BatchLoss = Callable[[Any, Rows], torch.Tensor]


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


def _stream(rows: Rows, epochs: float, rng: np.random.Generator) -> Rows:
    """Return `epochs` x `rows`, shuffled epoch by epoch; of a broken last epoch the share asked for."""
    turns = [rng.permutation(rows) for _ in range(int(np.ceil(epochs)))]
    return np.concatenate([rows[:0], *turns])[: round(epochs * len(rows))]


def spread_rows(batches: list[Rows], count: int) -> Rows:
    """Return at most `count` of the rows of the batches, each once, in order and evenly spread over them."""
    rows = np.unique(np.concatenate(batches)) if batches else np.zeros(0, dtype=np.int64)
    return rows[np.arange(count) * len(rows) // count] if len(rows) > count else rows


def teach(params: ClassificationParams, base: Path, texts: Texts, job: Job) -> dict[str, Any]:
    """Train the teacher on the labelled training set, or take it as it is (`teacher.epochs: 0`); return its summary.

    Its classification head, where it comes without one, is drawn from the current torch seed.
    """
    model, changes = load_teacher(base, params.data.labels)
    for line in changes:
        say(f"teacher: {line}")
    return {**_taught(params, base, model, texts, job), **({"changes": changes} if changes else {})}


def _taught(params: ClassificationParams, base: Path, model: Any, texts: Texts, job: Job) -> dict[str, Any]:
    section, device = params.teacher, job.device
    attend_plainly(model, device.device)
    if device.processes.shares is None:  # what it changes does not outlive a copy
        leave_out_unread(model, device.device)
    if section.frozen_layers is not None:
        freeze(model, section.frozen_layers)
    if section.epochs == 0:
        job.device.processes.end_others()
        save_classifier(model, base, job.out / "model")
        return keep_as_it_is(job.out, MOST_RIGHT)
    frames, rows = read_sets(texts.sets, ["train", "validation"]), load_tokens(texts.tokens / "train")
    labels, validation_labels = (frame["label"].to_numpy(dtype=np.int64) for frame in frames.values())
    targets, rng = torch.tensor(labels, device=device.device), np.random.default_rng(params.seed)
    epochs = [shuffled_buckets(rows.lengths, section.batch_rows, rng) for _ in range(section.epochs)]
    batches = [batch for epoch in epochs for batch in epoch]
    scratch = job.scratch((base, texts.sets, texts.tokens), seed=params.seed, teacher=section.model_dump())
    keeper = RowKeeper(scratch, device, load_tokens(texts.tokens / "validation"), validation_labels, TEACHER_BATCH_ROWS)

    def batch_loss(model: Any, chosen: Rows) -> torch.Tensor:
        logits_BC = model(**inputs_of(model, rows, chosen, device.device)).logits
        return torch.nn.functional.cross_entropy(
            logits_BC.float(), targets[torch.from_numpy(chosen)], label_smoothing=section.label_smoothing
        )

    course = Course(batches, batch_loss, schedule_of(section, section.learning_rate, params.seed))
    return job.train(model, course, keeper, base, _count(rows, batches))


def distil(params: ClassificationParams, round_name: str, student: Student, lesson: Lesson, job: Job) -> dict[str, Any]:
    """Train the student in place with the budget of a round, write `job.out` as `Keeper.finish` does; return its summary."""
    section, budget, model, device = params.distill, params.rounds[round_name], student.model, job.device
    frames = read_sets(lesson.sets, CACHED_SETS)
    taught = _taught_rows(lesson, frames)
    spelled = _spelled(params, student, taught)
    epochs = budget.labelled_epochs, budget.transfer_epochs
    batches = plan_batches(spelled.tokens.lengths, len(frames["train"]), *epochs, section.batch_rows, params.seed)
    learnt = spread_rows(batches, LEARNT_ROWS)
    inputs = (student.folder, lesson.tokens, lesson.sets, lesson.logits, lesson.teacher)
    scratch = job.scratch(inputs, seed=params.seed, distill=section.model_dump(), round=budget.model_dump())
    keeper = RowKeeper(
        scratch,
        device,
        load_tokens(lesson.tokens / CHECKPOINT_SET),
        frames[CHECKPOINT_SET]["label"].to_numpy(dtype=np.int64),
        section.batch_rows,
        load_logits(lesson.logits, frames, [CHECKPOINT_SET]),
        (rows_of(taught.tokens, learnt), taught.logits[learnt]),
    )
    attend_plainly(without_dropout(model), device.device)
    read = section.hidden is not None or section.relations is not None
    if not read and device.processes.shares is None:  # what it changes does not outlive a copy
        leave_out_unread(model, device.device)
    masker = None if budget.schedule is None else Masker(model, budget.schedule, budget.sparsity or 0.0)
    extras = make_extras(section, student, spelled.tokens, frames, lesson, device)

    def begin(share: float) -> None:
        extras.begin(share)
        if masker is not None:
            masker.begin(share)

    loss = rows_loss(params, spelled, device, extras)
    update = (lambda: None) if masker is None else masker.apply
    course = Course(batches, loss, distil_schedule(params, round_name), extras.module, begin, update)
    return job.train(model, course, keeper, student.folder, _count(spelled.tokens, batches))


def distil_schedule(params: ClassificationParams, round_name: str) -> Schedule:
    """Return the schedule of a round's distillation; checkpoints are taken when no more weights go."""
    section, budget = params.distill, params.rounds[round_name]
    return schedule_of(
        section,
        budget.learning_rate,
        params.seed,
        accumulate=section.accumulate,
        average=section.average,
        checkpoints_from=GROWN_AFTER if budget.schedule in SCHEDULES else 0.0,
    )


@dataclass(frozen=True)
class TaughtRows:
    """The rows a student learns from: their tokens, the teacher's logits (rows, classes), and labels, -1 where there is none."""

    tokens: TokenSet
    logits: Any
    labels: Rows


def _taught_rows(lesson: Lesson, frames: dict[str, Any]) -> TaughtRows:
    tokens = joined(*(load_tokens(lesson.tokens / name) for name in LEARNT_SETS))
    labels = np.concatenate([frames[name]["label"] for name in LEARNT_SETS]).astype(np.int64)
    return TaughtRows(tokens, load_logits(lesson.logits, frames), labels)


def _spelled(params: ClassificationParams, student: Student, taught: TaughtRows) -> TaughtRows:
    """Return the rows as they are learnt from: with `distill.piece_dropout` some of their words in shorter pieces."""
    share = params.distill.piece_dropout
    if share is None:
        return taught
    spellings = spellings_of(read_json(student.folder / "tokenizer.json"))
    return replace(taught, tokens=respelled(taught.tokens, spellings, share, params.data.max_tokens, params.seed))


def rows_loss(params: ClassificationParams, taught: TaughtRows, device: Device, extras: Extras) -> BatchLoss:
    """Return the function (model, rows) -> loss of the training loop."""
    section = params.distill
    teacher, targets = (torch.from_numpy(values).to(device.device) for values in (taught.logits, taught.labels))

    def batch_loss(model: Any, rows: Rows) -> torch.Tensor:
        inputs = inputs_of(model, taught.tokens, rows, device.device)
        chosen, active = torch.from_numpy(rows).to(device.device), extras.active
        more = {"output_hidden_states": True} if active else {}
        outputs = model(**inputs, **more)
        total = loss = distillation_loss(
            outputs.logits,
            teacher[chosen],
            targets[chosen],
            loss=section.loss,
            temperature=section.temperature,
            kd_weight=section.kd_weight,
        )
        for extra in active:
            with torch.autocast(device.device.type, enabled=False):  # of small differences bf16 would leave little
                extra_B = extra.loss(Batch(rows, inputs, outputs.hidden_states))
            total = total + weighed(loss, extra_B.mean(), extra.weight, device.processes.mean)
        return total

    return batch_loss


def _count(tokens: TokenSet, batches: list[Rows]) -> int:
    return int(sum(tokens.lengths[rows].sum() for rows in batches))


def cache(params: ClassificationParams, teacher: Path, texts: Texts, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the teacher's logits of all cached rows and, with distill.hidden, its states of those that students learn from.

    Returns what the fingerprint says of them, and the facts of the stage; `load_logits` refuses rows they were not made for.
    """
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    model, frames, hidden = load_classifier(teacher), read_sets(texts.sets, CACHED_SETS), params.distill.hidden
    attend_plainly(model, device.device)
    layers: list[int] = []
    if hidden is None:
        leave_out_unread(model, device.device)
    else:
        layers = list(range(1, num_layers(model) + 1))[0 if hidden.layers == "uniform" else -1 :]
    for name in frames:
        write_rows(model, load_tokens(texts.tokens / name), layers if name in LEARNT_SETS else [], out / name, device)
    fingerprint = {
        "tokenizer_sha256": file_sha256(teacher / "tokenizer.json"),
        "max_tokens": params.data.max_tokens,
        "rows_sha256": texts_sha256(frames),
        **({"state_layers": layers} if layers else {}),
    }
    return fingerprint, {"rows": sum(map(len, frames.values())), **device.facts()}
