"""How language models are trained on blocks: the teacher on the text alone, a student to imitate it as well.

Letters: B blocks, T tokens of a block, V pieces of the student's vocabulary, D channels of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.blocks import Blocks, Rows, load_blocks, plan_blocks
from tasks.data.vocabulary import kept_at_teacher
from tasks.files import file_sha256
from tasks.models.causal_lm import touch_read_rows_alone
from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, read_config, refuse_broken, save_causal_lm
from tasks.models.devices import Device, pick_for_training
from tasks.models.predict import Head, next_tokens, output_weight, predicting, predicting_beside
from tasks.params.causal_lm import CausalLMParams, Training
from tasks.progress import Progress
from tasks.training.attention import attend_in_short_blocks
from tasks.training.chunked_loss import Recipe, causal_loss
from tasks.training.hidden import weighed
from tasks.training.keeper import BlockKeeper, keep_as_it_is
from tasks.training.lesson import Job, Lesson, Student, Texts, schedule_of, without_dropout
from tasks.training.loop import Course
from tasks.training.metrics import BLOCKS_NLL
from tasks.training.token_states import TokenMatch, token_match
from tasks.training.top_k import CachedTopK, TopK, TopKFiles, best


@dataclass(frozen=True)
class Reading:
    """What a model is trained on: the section of params, learning rate, budget in tokens, and the blocks.

    `tokens` is the folder of blocks with their tokenizer, `inputs` the files that decide the result besides.
    """

    section: Training
    learning_rate: float
    train_tokens: int
    tokens: Path
    inputs: Sequence[Path]


@dataclass(frozen=True)
class Imitated:
    """Whom a student imitates: a teacher that runs beside it, or what is cached of one; with neither, it learns from the text.

    `kept_V` is the teacher's id of each of the student's tokens, None where they are the same. `states` is an extra loss on the
    layers of student and teacher.
    """

    teacher: Any = None
    kept_V: torch.Tensor | None = None
    cached: CachedTopK | None = None
    states: TokenMatch | None = None


def teach(params: CausalLMParams, base: Path, texts: Texts, job: Job) -> dict[str, Any]:
    """Train the teacher on the training blocks, or take it as it is (`teacher.train_tokens: 0`); return its summary.

    A new one is drawn from the current torch seed.
    """
    section = params.teacher
    model = load_causal_lm(base) if section.new is None else causal_lm_from_config(read_config(base))
    refuse_broken(base, model)
    if section.train_tokens > 0:
        recipe = Recipe("forward_kl", 1.0, 0.0, section.chunk_tokens, head_dtype(job.device))
        reading = Reading(section, section.learning_rate, section.train_tokens, texts.tokens, [base])
        return train_blocks(params.seed, reading, model, Imitated(), recipe, job)
    job.device.processes.end_others()
    save_causal_lm(model, texts.tokens, job.out / "model")
    return keep_as_it_is(job.out, BLOCKS_NLL)


def distil(params: CausalLMParams, round_name: str, student: Student, lesson: Lesson, job: Job) -> dict[str, Any]:
    """Train the student in place with the budget of a round, write `job.out` as `Keeper.finish` does; return its summary.

    The teacher is given the student's tokens by their ids there, and answers in them alone. Raises DataError when the student
    has a token that the teacher has not.
    """
    section, budget, device = params.distill, params.rounds[round_name], job.device
    recipe = Recipe(section.loss, section.temperature, section.kd_weight, section.chunk_tokens, head_dtype(device))
    inputs = [student.folder, lesson.teacher]
    reading = Reading(section, budget.learning_rate, budget.train_tokens, lesson.tokens, inputs)
    model = without_dropout(student.model)
    if section.cache is not None:
        cached = CachedTopK(lesson.logits, lesson.tokens / "train.npy", section.cache.top_k)
        return train_blocks(params.seed, reading, model, Imitated(cached=cached), recipe, job)
    teacher = load_causal_lm(lesson.teacher)
    kept_V = kept_at_teacher(lesson.tokens, lesson.teacher, (model.config.vocab_size, teacher.config.vocab_size))
    states = None
    if section.hidden is not None:
        blocks = load_blocks(lesson.tokens, "train")
        states = token_match(model, teacher, blocks, device, kept_V, section.hidden)
    return train_blocks(params.seed, reading, model, Imitated(teacher, kept_V, states=states), recipe, job)


def train_blocks(seed: int, reading: Reading, model: Any, imitated: Imitated, recipe: Recipe, job: Job) -> dict[str, Any]:
    """Train `model` in place, write `job.out` as `Keeper.finish` does, and return its summary."""
    blocks, section, states = load_blocks(reading.tokens, "train"), reading.section, imitated.states
    batches = plan_blocks(len(blocks), reading.train_tokens, blocks.shape[1], section.batch_blocks, seed)
    if imitated.cached is not None:
        imitated.cached.check(batches)
    scratch = job.scratch(
        (*reading.inputs, reading.tokens),
        seed=seed,
        section=section.model_dump(),
        budget=[reading.learning_rate, reading.train_tokens],
    )
    validation = load_blocks(reading.tokens, "validation")
    keeper = BlockKeeper(scratch, job.device, validation, section.batch_blocks, section.chunk_tokens)
    loss = blocks_loss(model, imitated, recipe, job.device, lambda rows: block_batch(blocks, rows, job.device))
    course = Course(batches, loss, schedule_of(section, reading.learning_rate, seed, accumulate=section.accumulate))
    if states is not None:
        course = replace(course, beside=states.match.projection, begin=states.begin)
    return job.train(model, course, keeper, reading.tokens, sum(map(len, batches)) * blocks.shape[1])


def blocks_loss(
    model: Any, imitated: Imitated, recipe: Recipe, device: Device, batch_of: Callable[[Rows], torch.Tensor]
) -> Callable[[Any, Rows], torch.Tensor]:
    """Return the function (model, rows) -> loss of the training loop. Student and teacher are made ready for it.

    `batch_of` gives the tokens (B, T) of some rows.
    """
    teacher, kept_V, cached, states = imitated.teacher, imitated.kept_V, imitated.cached, imitated.states
    if teacher is not None:
        device.prepare_to_read(teacher)
        attend_in_short_blocks(teacher, device)
        kept_V = None if kept_V is None else kept_V.to(device.device)
        teacher_VD = output_weight(teacher, kept_V).detach().to(recipe.dtype)  # once: it does not change
    attend_in_short_blocks(model, device)
    alone = device.processes.count == 1
    if alone:
        touch_read_rows_alone(model)

    def batch_loss(student: Any, rows: Rows) -> torch.Tensor:
        ids_BT = batch_of(rows)
        extra = states if states is not None and states.active else None
        layer, teacher_layer = (None, None) if extra is None else extra.layers
        other: Head | TopK | None = None if cached is None else cached.of(rows, device.device)
        teacher_BTE = None
        if teacher is not None:
            with torch.no_grad():
                other, teacher_BTE = predicting_beside(teacher, ids_BT, teacher_layer, kept_V, teacher_VD)
        head, states_BTD = predicting_beside(student, ids_BT, layer)
        loss = causal_loss(replace(head, adds_itself=alone), other, next_tokens(ids_BT), recipe)
        if extra is None or states_BTD is None or teacher_BTE is None:  # states are those of a teacher beside
            return loss
        with torch.autocast(device.device.type, enabled=False):  # of small differences bf16 would leave little
            extra_loss = extra.loss(states_BTD, teacher_BTE)
        return loss + weighed(loss, extra_loss, extra.weight, device.processes.mean)

    return batch_loss


def cache(params: CausalLMParams, teacher: Path, texts: Texts, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write what the teacher holds most likely in the first blocks that students learn from, where distill.cache asks for it.

    Returns what the fingerprint says of it, and the facts of the stage. All its logits would be gigabytes: without the cache
    nothing is kept, and distillation runs the teacher beside the student.
    """
    known = {"tokenizer_sha256": file_sha256(texts.tokens / "tokenizer.json")}
    section = params.distill.cache
    if section is None:
        return known, {"rows": 0}
    device = pick_for_training(params.runtime)
    count = _write_best(params, teacher, load_blocks(texts.tokens, "train"), out, device)
    top_k = {"top_k": section.top_k, "blocks_sha256": file_sha256(texts.tokens / "train.npy")}
    return {**known, "top_k": top_k}, {"rows": count, **device.facts()}


def _write_best(params: CausalLMParams, teacher: Path, blocks: Blocks, out: Path, device: Device) -> int:
    """Write the teacher's best pieces of the first blocks in the order of training, and return of how many.

    The order is that of the seed, so a round with fewer tokens learns from the first of them.
    """
    section, wanted = params.distill, params.distill.cache
    assert wanted is not None
    budget = min(wanted.tokens, blocks.size)
    batches = plan_blocks(len(blocks), budget, blocks.shape[1], section.batch_blocks, params.seed)
    model = load_causal_lm(teacher).eval()
    device.prepare_to_read(model)
    attend_in_short_blocks(model, device)
    count = sum(map(len, batches))
    files = TopKFiles(out, np.concatenate(batches), blocks.shape[1] - 1, wanted.top_k, model.config.vocab_size)
    progress = Progress("teacher_logits", count, "blocks")
    done, dtype = 0, head_dtype(device)
    with torch.inference_mode():
        for rows in batches:
            with device.autocast():
                head = predicting(model, block_batch(blocks, rows, device))
            weight_VD = head.weight_VD.to(dtype)
            chunks = head.hidden_ND.to(dtype).split(section.chunk_tokens)
            files.write(done, (best(chunk @ weight_VD.T, wanted.top_k) for chunk in chunks))
            done += len(rows)
            progress.update(done)
    files.close()
    return count


def block_batch(blocks: Blocks, rows: Rows, device: Device) -> torch.Tensor:
    """Return the tokens of these blocks, int64 (B, T), where the arithmetic runs."""
    return torch.from_numpy(np.asarray(blocks[rows], dtype=np.int64)).to(device.device)


def head_dtype(device: Device) -> torch.dtype:
    """Return in which precision the heads' matrix products run."""
    return torch.bfloat16 if device.precision == "bf16" else torch.float32
