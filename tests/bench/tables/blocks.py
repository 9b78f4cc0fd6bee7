"""The four curves of a language model: the last round's shape, cut from the teacher in one shot, by the stages themselves."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tasks.data.blocks import load_blocks
from tasks.files import file_sha256, read_json, read_json_lines
from tasks.measuring.causal_lm import CHUNK_TOKENS
from tasks.measuring.quality import Draws, interval_of_mean
from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, read_config
from tasks.models.devices import Device, pick_for_training
from tasks.models.predict import predict_blocks
from tasks.params.causal_lm import CausalLMParams
from tasks.params.file import check_params
from tasks.stages import prune
from tasks.training.causal_lm import distil
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.metrics import BLOCKS_NLL
from tasks.training.teacher_cache import check_teacher
from tests.bench.tables.cells import CHECKPOINTS, Cell
from tests.bench.tables.compare import RESAMPLES, TWO_SIDED, Difference
from tests.bench.tables.render import table

ROUND: Final = "cell"
DIGITS: Final = 6


@dataclass(frozen=True)
class BlockLab:
    """A finished run of a language model, and the blocks that each cell learns from."""

    params: CausalLMParams
    artifacts: Path
    folder: Path
    blocks: int

    @property
    def place(self) -> Path:
        """The folder of the teacher's stages."""
        return self.artifacts / "rounds" / "teacher"

    def described(self) -> dict[str, Any]:
        """Return what a cell's result depends on besides the cell."""
        sha256 = file_sha256(self.place / "trained" / "model" / "model.safetensors")
        return {"blocks": self.blocks, "teacher_sha256": sha256, "seed": self.params.seed}


def cells_of(params: CausalLMParams, artifacts: Path) -> dict[tuple[str, str], Cell]:
    """Return (shape, name of the curve) -> cell, the one that is to win first; the shape is that of the run's last round."""
    name, last = list(params.rounds.items())[-1]
    shape = read_json(artifacts / "rounds" / name / "pruned" / "plan.json")["shape_after"]

    def cell(criterion: str, **how: str) -> Cell:
        return Cell({**shape, "criterion": criterion}, learning_rate=last.learning_rate, **how)

    return {
        (f"as {name}", "activation-pruned + KD"): cell("activation"),
        (f"as {name}", "random-pruned + KD"): cell("random"),
        (f"as {name}", "random init + KD"): cell("activation", start="random"),
        (f"as {name}", "activation-pruned + CE"): cell("activation", loss="ce"),
    }


def params_of(lab: BlockLab, cell: Cell) -> CausalLMParams:
    """Return the params of the run with the cell as its only round."""
    values = lab.params.model_dump()
    target = dict(cell.target)
    values["prune"]["criterion"] = target.pop("criterion")
    tokens = lab.blocks * lab.params.data.block_tokens
    budget = {"parent": "teacher", "learning_rate": cell.learning_rate, "train_tokens": tokens}
    values["rounds"] = {ROUND: {**target, **budget}}
    values["baselines"]["random_init"] = []
    values["distill"] |= {"checkpoints": CHECKPOINTS, **({"kd_weight": 0.0} if cell.loss == "ce" else {})}
    found = check_params(values, "params.yaml")
    assert isinstance(found, CausalLMParams)
    return found


def measure_cell(lab: BlockLab, cell: Cell) -> dict[str, Any]:
    """Return what a cell is before and after its recovery: parameters, curve, nats a token of each block of each set."""
    params, work = params_of(lab, cell), lab.folder / "work"
    out = work / ROUND
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    device = pick_for_training(params.runtime)
    teacher, tokens = lab.place / "trained" / "model", out / "tokens"
    with contextlib.chdir(work):  # where a stage keeps its scratch, from which a killed cell goes on
        prune.run(
            params,
            round=ROUND,
            parent=teacher,
            tokens=lab.place / "tokens",
            sets=lab.artifacts / "data" / "sets",
            teacher=teacher,
            out=out / "pruned",
            planned=out / "search/planned.json",
            student_tokens=tokens,
        )
        pruned = out / "pruned" / "model"
        student = load_causal_lm(pruned)
        if cell.start == "random":
            torch.manual_seed(params.seed)
            student = causal_lm_from_config(read_config(pruned))
        before, began = measured(params, student, tokens, device), time.perf_counter()
        lesson = Lesson(lab.artifacts / "data" / "sets", tokens, lab.artifacts / "teacher_logits", teacher)
        check_teacher(lesson.logits, teacher)
        job = Job(f"bench-{cell.start}@{ROUND}", out / "trained", device)
        summary = distil(params, ROUND, Student(student, pruned), lesson, job)
    curve = [line for line in read_json_lines(out / "trained" / "steps.jsonl") if "checkpoint" in line]
    return {
        "nats": measured(params, student, tokens, device),
        "params_total": student.num_parameters(),
        "shape": params.rounds[ROUND].axes,
        "steps": summary["steps"],
        "before": {BLOCKS_NLL: float(np.mean(before["validation"]))},
        "curve": [{"step": line["step"], BLOCKS_NLL: line[BLOCKS_NLL]} for line in curve],
        "recover_seconds": round(time.perf_counter() - began, 1),
        **device.facts(),
    }


def measured(params: CausalLMParams, student: Any, tokens: Path, device: Device) -> dict[str, list[float]]:
    """Return set -> the nats a predicted token of each block, in fp32 as `evaluate` does."""
    precise = Device(device.device, "fp32", device.threads)
    found = {}
    for name in params.measured_sets():
        blocks = load_blocks(tokens, name)
        told = predict_blocks(student, blocks, params.evaluate.batch_blocks, CHUNK_TOKENS, precise)
        found[name] = [round(float(one), DIGITS) for one in told.nll_nats_N / (blocks.shape[1] - 1)]
    return found


def written(cells: Mapping[tuple[str, str], Mapping[str, Any]], seed: int) -> str:
    """Return the Markdown of the final numbers: perplexities, with the paired interval of the difference in nats."""
    first = next(iter(cells.values()))
    rows = []
    for (_, name), facts in cells.items():
        row = [name, f"{facts['params_total'] / 1e6:.2f} M"]
        for which, nats in facts["nats"].items():
            found = interval_of_mean(np.array(nats) - np.array(first["nats"][which]), Draws(RESAMPLES, TWO_SIDED, seed))
            one = Difference(found["value"], found["low"], found["high"], higher_is_better=False)
            told = "" if facts is first else f" ({one.value:+.3f}, {one.low:+.3f} to {one.high:+.3f}: {one.verdict})"
            row.append(f"{np.exp(np.mean(nats)):.1f}{told}")
        rows.append(row)
    sets = [f"perplexity on {name} (nats a token)" for name in first["nats"]]
    return table(["", "parameters", *sets], rows)
