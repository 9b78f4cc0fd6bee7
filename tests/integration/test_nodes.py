"""One training over nodes that torchrun brings together on the loopback: what one process makes, and an end for all when one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.children import LOOPBACK, free_port
from tasks.files import digest, read_json
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tests.integration.test_extra_losses_stage import params_of
from tests.integration.trainings import assert_same_training, losses, stage, student_of

ROOT = Path(__file__).parents[2]
LOOKS = 600  # at a file that is to appear
ENDED_SECONDS = 60.0  # in which all nodes end after the death of one; here the connection tells at once


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def external(params: ClassificationParams, strategy: str = "ddp") -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": "external", "backend": "auto", "strategy": strategy}
    return check_params(values, "params.yaml")


def in_two(params: ClassificationParams) -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": 2, "backend": "auto", "strategy": "ddp"}
    return check_params(values, "params.yaml")


def write(params: ClassificationParams) -> None:
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(), file)


@contextmanager
def nodes(*words: object, env: Sequence[dict[str, str]] = ({}, {})) -> Iterator[list[subprocess.Popen[str]]]:
    """Start torchrun twice, as on two machines, with what each of its processes runs: `-m MODULE ARGUMENTS`."""
    port, started = free_port(), []
    base = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:{port}"]
    for number in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", *options, "--node-rank", str(number), "--local-addr", LOOPBACK]
        with Path(f"node{number}.log").open("w", encoding="utf-8") as log:
            node = subprocess.Popen(
                [*command, *map(str, words)],
                env={**base, **env[number]},
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        started.append(node)
    try:
        yield started
    finally:
        for node in started:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def said() -> str:
    return "".join(Path(f"node{number}.log").read_text(encoding="utf-8") for number in range(2))


def ended(started: list[subprocess.Popen[str]], seconds: float = 240.0) -> list[int]:
    return [node.wait(timeout=seconds) for node in started]


def largest_difference(one: Path, two: Path) -> float:
    mine, other = (np.array(losses(trained)) for trained in (one, two))
    return float(np.max(np.abs(mine - other) / np.abs(mine)))


@pytest.mark.parametrize("how", ["joined", "direct"])
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_nodes_train_what_one_process_trains(tiny_families: Path, workspace: Path, how: str, strategy: str) -> None:
    params = params_of(batch_rows=15)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "on1") == 0
    write(external(params, strategy))
    words = ["-m", "tasks", "distill", *paths, "--out", "on2", "--receipt", "two.json"]
    with nodes(*(["-m", "tasks.cli", "join", "python", *words] if how == "joined" else words)) as started:
        assert ended(started) == [0, 0], said()
    assert_same_training(Path("on1"), Path("on2"))
    print("largest relative difference", largest_difference(Path("on1"), Path("on2")))
    receipt = read_json(Path("two.json"))
    assert (receipt["processes"], receipt["backend"], receipt["facts"]["launcher"]) == (2, "gloo", "external")
    assert receipt["facts"].get("strategy") == (None if strategy == "ddp" else strategy)
    if strategy == "ddp":  # and the very bits of two processes of one machine
        assert stage(in_two(params), "distill", *paths, "--out", "launched") == 0
        assert digest(Path("on2")) == digest(Path("launched"))
