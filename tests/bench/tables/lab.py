"""Prunes and recovers one cell after another with the project's own stages, on the artifacts of a finished run.

A cell learns from the labelled rows and from `rows` of the transfer rows, each once. The rows and what the teacher says of
them are copied out once, so that every cell sees the same; nothing is written into the run's workspace.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import load_tokens
from tasks.files import file_sha256, read_json, read_json_lines, write_json
from tasks.measuring.classification import BATCH_ROWS
from tasks.measuring.quality import accuracy, log_softmax
from tasks.models.checkpoint import classifier_from_config, load_classifier, read_config
from tasks.models.devices import Device, pick_for_training
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, load_params
from tasks.pruning.classification import write_tokens
from tasks.pruning.cut import Origin
from tasks.stages import prune
from tasks.training.classification import distil
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import CACHED_SETS, CHECKPOINT_SET, LEARNT_SETS, check_teacher, load_logits, texts_sha256
from tests.bench.tables import rivals
from tests.bench.tables.cells import CHECKPOINTS, Cell

ROUND: Final = "cell"
POINT: Final = ("validation_kl_nats_per_example", "validation_accuracy")  # of a curve
DIGITS: Final = 6  # of a row's KL in the file of results


@dataclass(frozen=True)
class Lab:
    """The parts of a finished run that cells start from, and the rows they learn from, below `folder`."""

    params: ClassificationParams
    artifacts: Path
    folder: Path
    rows: int

    @property
    def teacher(self) -> Path:
        """The folder of the teacher."""
        return self.artifacts / "rounds" / "teacher" / "trained" / "model"

    @property
    def tokens(self) -> Path:
        """The tokens of all rows as the teacher reads them."""
        return self.artifacts / "rounds" / "teacher" / "tokens"

    @property
    def data(self) -> Path:
        """Where `sets`, `sets_ce` and `logits` of the chosen rows are."""
        return self.folder / f"rows-{self.rows}"

    def described(self) -> dict[str, Any]:
        """Return what a cell's result depends on besides the cell."""
        sha256 = file_sha256(self.teacher / "model.safetensors")
        return {"transfer_rows": self.rows, "teacher_sha256": sha256, "seed": self.params.seed}


def open_lab(workspace: Path, folder: Path, rows: int) -> Lab:
    """Return the lab of a run, with `rows` of its transfer rows, drawn by the seed of its params, copied to `folder`."""
    params = load_params(workspace / "params.yaml")
    assert isinstance(params, ClassificationParams), "a language model has a bench of its own"
    lab = Lab(params, workspace / "artifacts", folder, rows)
    check_teacher(lab.artifacts / "teacher_logits", lab.teacher)
    if not lab.data.exists():
        partial = lab.data.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy_rows(lab, partial)
        partial.rename(lab.data)
    return lab


def _copy_rows(lab: Lab, out: Path) -> None:
    """Write the sets with fewer transfer rows, the same with the teacher's choices as labels, and the cached logits."""
    source = lab.artifacts / "data" / "sets"
    for name in ("sets", "sets_ce"):
        shutil.copytree(source, out / name)
    frames = read_sets(source, CACHED_SETS)
    logits = load_logits(lab.artifacts / "teacher_logits", frames)
    logits = dict(zip(LEARNT_SETS, np.split(logits, [len(frames["train"])]), strict=True))
    order = np.random.default_rng(lab.params.seed).permutation(len(frames["transfer"]))
    chosen = np.sort(order[: lab.rows])
    frames["transfer"] = frames["transfer"].iloc[chosen].reset_index(drop=True)
    logits["transfer"] = logits["transfer"][chosen]
    frames["transfer"].to_parquet(out / "sets" / "transfer.parquet", index=False)
    labelled = frames["transfer"].assign(label=logits["transfer"].argmax(axis=1))
    labelled.to_parquet(out / "sets_ce" / "transfer.parquet", index=False)
    shutil.copytree(lab.artifacts / "teacher_logits", out / "logits")
    np.save(out / "logits" / "transfer.npy", logits["transfer"])
    known = read_json(out / "logits" / "fingerprint.json")
    write_json(out / "logits" / "fingerprint.json", {**known, "rows_sha256": texts_sha256(frames)})


def params_of(lab: Lab, cell: Cell) -> ClassificationParams:
    """Return the params of the run with the cell as its only round."""
    values = lab.params.model_dump()
    budget = {"labelled_epochs": 1, "transfer_epochs": 1.0}
    if cell.loss == "labels":
        train = len(pd.read_parquet(lab.data / "sets" / "train.parquet", columns=["row_id"]))
        budget = {"labelled_epochs": max(1, round((train + lab.rows) / train)), "transfer_epochs": 0.0}
    values["rounds"] = {ROUND: {"parent": "teacher", "learning_rate": cell.learning_rate, **budget, **cell.target}}
    values["baselines"]["random_init"] = []
    values["distill"]["checkpoints"] = CHECKPOINTS
    if cell.loss != "kd":
        values["distill"]["kd_weight"] = 0.0
    return check_params(values, "params.yaml")


def measure_cell(lab: Lab, cell: Cell) -> dict[str, Any]:
    """Return what a cell is before and after its recovery: parameters, curve, KL of each validation row, right rows."""
    params, work = params_of(lab, cell), lab.folder / "work"
    shutil.rmtree(work / ROUND, ignore_errors=True)
    (work / ROUND).mkdir(parents=True)
    device = pick_for_training(params.runtime)
    sets = lab.data / ("sets_ce" if cell.loss == "ce" else "sets")
    with contextlib.chdir(work):  # where a stage keeps its scratch, from which a killed cell goes on
        began = time.perf_counter()
        student, tokenizer, plan = _start(lab, cell, params, work / ROUND, sets)
        tokens, pruned = work / ROUND / "tokens", time.perf_counter()
        before = _measured(lab, student, tokens, device, [CHECKPOINT_SET])
        lesson = Lesson(sets, tokens, lab.data / "logits", lab.teacher)
        job = Job(f"bench-{cell.start}@{ROUND}", work / ROUND / "trained", device)
        summary = distil(params, ROUND, Student(student, tokenizer), lesson, job)
        facts = _measured(lab, student, tokens, device, [CHECKPOINT_SET, "test", *lab.params.data.evaluation_sets])
    curve = [line for line in read_json_lines(work / ROUND / "trained" / "steps.jsonl") if "checkpoint" in line]
    return {
        **facts,
        "params_total": student.num_parameters(),
        "shape": plan.get("shape_after"),
        "masks": plan.get("masks"),
        "steps": summary["steps"],
        "before": {key: before[key] for key in POINT},
        "curve": [{"step": line["step"], **{key: line[key] for key in POINT}} for line in curve],
        "prune_seconds": round(pruned - began, 1),
        "recover_seconds": round(time.perf_counter() - pruned, 1),
        **device.facts(),
    }


def _start(lab: Lab, cell: Cell, params: ClassificationParams, out: Path, sets: Path) -> tuple[Any, Path, dict[str, Any]]:
    """Return the student before its recovery, the folder of its tokenizer, and what the plan says; write its tokens."""
    origin = Origin(lab.teacher, lab.tokens, sets, lab.teacher)
    if cell.start not in ("pruned", "random"):
        write_tokens(params, origin, lab.teacher, out / "tokens")
        return rivals.student_of(cell, lab.teacher, lab.tokens, sets, lab.folder), lab.teacher, {}
    prune.run(
        params,
        round=ROUND,
        parent=lab.teacher,
        tokens=lab.tokens,
        sets=sets,
        teacher=lab.teacher,
        out=out / "pruned",
        planned=out / "search/planned.json",
        student_tokens=out / "tokens",
    )
    model, plan = out / "pruned" / "model", read_json(out / "pruned" / "plan.json")
    if plan["shape_after"]["vocabulary"] == plan["shape_before"]["vocabulary"]:  # the stage took over the tokens of all rows
        shutil.rmtree(out / "tokens")
        write_tokens(params, origin, model, out / "tokens")
    if cell.start == "pruned":
        return load_classifier(model), model, plan
    torch.manual_seed(params.seed)
    return classifier_from_config(read_config(model)), model, plan


def _measured(lab: Lab, student: Any, tokens: Path, device: Device, names: list[str]) -> dict[str, Any]:
    """Return a student's right rows on each set and the KL of each validation row, in fp32 as `evaluate` does."""
    precise = Device(device.device, "fp32", device.threads)
    found: dict[str, Any] = {"right": {}}
    for name, frame in read_sets(lab.data / "sets", names).items():
        logits = predict_logits(student, load_tokens(tokens / name), BATCH_ROWS, precise)
        right = logits.argmax(axis=1) == frame["label"].to_numpy()
        found["right"][name] = "".join("1" if one else "0" for one in right)
        if name == CHECKPOINT_SET:
            teacher = log_softmax(np.load(lab.data / "logits" / f"{name}.npy"))
            kl = (np.exp(teacher) * (teacher - log_softmax(logits))).sum(axis=1)
            found["validation_kl_nats"] = [round(float(one), DIGITS) for one in kl]
            found[POINT[0]] = float(kl.mean())
            found[POINT[1]] = accuracy(frame["label"].to_numpy(), logits.argmax(axis=1))
    return found
