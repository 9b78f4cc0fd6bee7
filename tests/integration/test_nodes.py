"""One training over nodes that others brought together, here on the loopback: what one process makes, and one end for all.

The quick tests fork processes into the environment that srun or torchrun makes; the slow ones start torchrun twice.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401 - imported once here, and not in each process that is started
import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from tasks.children import LOOPBACK, free_port
from tasks.cli.app import main as run_command
from tasks.errors import ParamsError, ResourceError, UserError
from tasks.files import digest, read_json
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.running.group import Store, first_node, read_group
from tasks.running.join import Pulse, module_of
from tasks.running.stage import main
from tests.integration.test_extra_losses_stage import params_of
from tests.integration.test_processes import killed_at
from tests.integration.trainings import assert_same_training, losses, stage, student_of
from tests.marks import quick

ROOT = Path(__file__).parents[2]
ENDED_SECONDS = 90.0  # in which torchrun has ended as well, which waits for what it ends
ROUNDING = 1e-5  # of a loss, against its own size; 6e-7 was seen
SCRATCH = Path(".compactlm") / "scratch"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def external(params: ClassificationParams, strategy: str = "ddp") -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": "external", "backend": "auto", "strategy": strategy}
    return check_params(values, "params.yaml")


def in_two(params: ClassificationParams, strategy: str) -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": 2, "backend": "auto", "strategy": strategy}
    return check_params(values, "params.yaml")


def write(params: ClassificationParams) -> None:
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(), file)


@contextmanager
def nodes(*words: object, static: bool = False) -> Iterator[list[subprocess.Popen[str]]]:
    """Start torchrun twice, as on two machines, with what each of its processes runs: `-m MODULE ARGUMENTS`.

    `static`: the node numbers are ours; else torchrun gives them out.
    """
    port, started = free_port(), []
    base = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    dynamic = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:{port}"]
    where = ["--master-addr", LOOPBACK, "--master-port", str(port)] if static else dynamic
    options = ["--nnodes", "2", "--nproc-per-node", "1", *where]
    for number in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", *options, "--node-rank", str(number), "--local-addr", LOOPBACK]
        with Path(f"node{number}.log").open("w", encoding="utf-8") as log:
            node = subprocess.Popen(
                [*command, *map(str, words)], env=base, stdout=log, stderr=log, text=True, start_new_session=True
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


def forked(environ: dict[str, str], words: Sequence[object]) -> None:
    """Be a process that srun or torchrun started: run a stage in this environment and end with its code."""
    os.environ.update(environ)
    os._exit(main(list(map(str, words))))


def run_forked(environs: Sequence[dict[str, str]], *words: object) -> list[int]:
    """Return the exit codes of a stage in so many processes."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=forked, args=(environ, words)) for environ in environs]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [int(process.exitcode or 0) for process in started]


def by_srun(count: int = 2) -> list[dict[str, str]]:
    """Return what srun tells so many tasks, a node each, here on one machine."""
    port = str(free_port())
    return [
        {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(count), "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        | {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost,other", "MASTER_PORT": port}
        for rank in range(count)
    ]


@pytest.mark.parametrize("strategy", quick(["ddp", "fsdp"], ["ddp"]))
def test_two_tasks_of_slurm_train_what_one_process_and_two_of_one_machine_train(
    tiny_families: Path, workspace: Path, strategy: str
) -> None:
    params = params_of(batch_rows=15)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "on1") == 0
    assert stage(in_two(params, strategy), "distill", *paths, "--out", "launched") == 0
    write(external(params, strategy))
    assert run_forked(by_srun(), "distill", *paths, "--out", "on2", "--receipt", "two.json") == [0, 0]
    assert_same_training(Path("on1"), Path("on2"))
    assert largest_difference(Path("on1"), Path("on2")) < ROUNDING
    assert digest(Path("on2")) == digest(Path("launched"))
    assert_told(read_json(Path("two.json")), strategy)
    assert not (SCRATCH / "distill@r1").exists()


def assert_told(receipt: dict[str, Any], strategy: str) -> None:
    assert (receipt["processes"], receipt["backend"], receipt["facts"]["launcher"]) == (2, "gloo", "external")
    assert receipt["facts"].get("strategy") == (None if strategy == "ddp" else strategy)


def test_where_one_dies_the_other_ends_with_a_sentence_and_the_next_start_goes_on_to_the_same_bits(
    tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = external(params_of())
    paths = student_of(params, tiny_families, workspace)
    write(params)
    assert run_forked(by_srun(), "distill", *paths, "--out", "whole") == [0, 0]
    monkeypatch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.models.processes.Processes.share", killed_at(9))
        assert run_forked(by_srun(), "distill", *paths, "--out", "again") == [1, -signal.SIGKILL]
    said = capfd.readouterr().err
    assert "error: distill: another process of the group ended or is out of reach" in said
    assert "training goes on from the last saved state" in said
    assert "Traceback" not in said
    assert (SCRATCH / "distill@r1/state.pt").exists()
    assert run_forked(by_srun(), "distill", *paths, "--out", "again") == [0, 0]
    assert digest(Path("again")) == digest(Path("whole"))


def test_nodes_with_other_files_are_refused_by_all_of_them(
    tiny_families: Path, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = external(params_of())
    paths = student_of(params, tiny_families, workspace)
    write(params)
    first, second = by_srun()
    (workspace / "pruned2").symlink_to(tiny_families / "sets")
    context = multiprocessing.get_context("fork")
    other = [workspace / "pruned2" if path == workspace / "pruned" else path for path in paths]
    processes = [
        context.Process(target=forked, args=(environ, ["distill", *words, "--out", f"out{number}"]))
        for number, (environ, words) in enumerate([(first, paths), (second, other)])
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [2, 2]
    said = capfd.readouterr().err
    assert said.count("(rank 1) other than on") == 2
    assert str(workspace / "pruned") in said
    assert "bring that node to the same commit, params.yaml and files" in said


@pytest.mark.slow
def test_a_node_that_does_not_appear_is_named(
    tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.running.meet.APPEAR_SECONDS", 1.0)
    params = external(params_of())
    paths = student_of(params, tiny_families, workspace)
    write(params)
    assert run_forked(by_srun(3)[:1], "distill", *paths, "--out", "out") == [2]
    assert "of 3 processes, those with rank 1, 2 did not appear within 1 seconds" in capfd.readouterr().err
    assert run_forked(by_srun(3)[1:2], "distill", *paths, "--out", "out") == [2]
    assert "rank 1 of 3 does not reach the group at localhost:" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "external needs RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment, which torchrun and srun set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "external needs MASTER_PORT in the environment"),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "n1"},
            "WORLD_SIZE=1 and this is RANK=0; a group has two",
        ),
        ({"RANK": "a", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, "RANK=a in the environment is no number"),
    ],
)
def test_a_group_that_is_none_is_refused_in_words(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ResourceError) as refused:
        read_group(environ)
    assert said in str(refused.value)


def test_a_training_without_a_group_is_refused_and_other_stages_are_the_first_ones(
    tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = params_of()
    paths = student_of(params, tiny_families, workspace)
    assert stage(external(params), "distill", *paths, "--out", "out") == 2
    assert "set runtime.launcher: null" in capfd.readouterr().err
    assert not Path("out").exists()
    # whoever is not the first has nothing to do there, and does not look at what it was asked
    assert run_forked([{"RANK": "1", "WORLD_SIZE": "2"}], "evaluate", "--nonsense") == [0]


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[03-05,9],login", "gpu03"), ("a,b", "a"), ("node-7", "node-7"), ("x[1,3]", "x1"), ("", "")]
)
def test_the_first_of_a_list_of_slurm_nodes(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_slurm_s_names_and_port_are_read() -> None:
    group = read_group(
        {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
        | {"SLURM_JOB_ID": "123456", "SLURM_STEP_NODELIST": "gpu[03-04]"}
    )
    assert (group.rank, group.count, group.local_rank, group.local_count) == (3, 4, 1, 2)
    assert (group.address, group.port, group.hosted) == ("gpu03", 18456, False)


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ("external", "runtime.launcher: got 'external'; write {processes: external, backend: auto, strategy: ddp}"),
        (
            {"processes": "many", "backend": "auto", "strategy": "ddp"},
            "runtime.launcher.processes: got 'many'; a number from 1 on",
        ),
    ],
)
def test_a_wrong_external_launcher_is_refused_in_words(launcher: object, said: str) -> None:
    values = params_of().model_dump()
    values["runtime"]["launcher"] = launcher
    with pytest.raises(ParamsError) as refused:
        check_params(values, "params.yaml")
    assert said in str(refused.value)


def test_external_shares_are_refused_where_whole_weights_are_needed() -> None:
    values = external(params_of(), "fsdp").model_dump()
    values["distill"]["average"] = 0.9
    with pytest.raises(ParamsError, match=r"distill\.average needs whole weights"):
        check_params(values, "params.yaml")


def forked_join(environ: dict[str, str], folder: Path, words: Sequence[str]) -> None:
    """Be one node that runs `compactlm join` in its folder."""
    os.environ.update(environ | {"PYTHONPATH": str(ROOT)})
    os.chdir(folder)
    sys.argv = ["compactlm", "join", "--patience", "20", *words]
    try:
        run_command()
    except SystemExit as leave:
        os._exit(int(leave.code or 0))


def run_joined(folders: Sequence[Path], *words: str) -> list[int]:
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=forked_join, args=(environ, folder, words))
        for environ, folder in zip(by_srun(len(folders)), folders, strict=True)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [int(process.exitcode or 0) for process in started]


def test_all_of_a_joined_command_end_with_its_code_and_see_no_group(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (workspace / "what.py").write_text("import os, sys\nsys.exit(7 if 'WORLD_SIZE' not in os.environ else 1)\n", encoding="utf-8")
    assert run_joined([workspace, workspace], "python", "-m", "what") == [7, 7]
    assert "joined: process 2 of 2 (rank 1)" in capfd.readouterr().err


@pytest.mark.slow
def test_what_a_joined_node_refuses_ends_all_and_the_first_says_it(
    tiny_families: Path, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = external(params_of())
    paths = student_of(params, tiny_families, workspace)
    write(params)
    there = workspace / "there"
    there.mkdir()  # which has no params.yaml
    words = ["distill", *map(str, paths), "--out", "out"]
    assert run_joined([workspace, there], "python", "-m", "tasks", *words) == [2, 2]
    said = capfd.readouterr().err
    assert said.count("(rank 1): params.yaml: ") == 2
    assert not (workspace / "out").exists()


def test_a_joined_training_that_is_not_external_is_refused(
    tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = params_of()
    paths = student_of(params, tiny_families, workspace)
    monkeypatch.setenv("COMPACTLM_GROUP", read_group(by_srun()[0]).dumps())
    assert stage(params, "distill", *paths, "--out", "out") == 2
    assert "runtime.launcher: must be {processes: external," in capfd.readouterr().err


def test_only_commands_of_this_project_are_joined() -> None:
    assert module_of([]) == ["tasks.cli", "run"]
    assert module_of(["dvc", "repro"]) == ["dvc", "repro"]
    with pytest.raises(UserError, match="the command is one of `compactlm"):
        module_of(["bash", "-c", "true"])


def test_who_shows_no_life_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.running.join.PULSE_SECONDS", 0.05)
    monkeypatch.setattr("tasks.running.join.SILENT_SECONDS", 1.0)
    first, second = (replace(read_group(environ), port=free) for free in [free_port()] for environ in by_srun())
    pulses = [Pulse(Store(group, host=group.rank == 0, patience=5)) for group in (first, second)]
    time.sleep(1.5)
    assert [pulse.silent([0, 1]) for pulse in pulses] == [[], []]
    pulses[1].stop()
    deadline = time.monotonic() + 10
    while pulses[0].silent([1]) != [1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert pulses[0].silent([0]) == []
    pulses[0].stop()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "strategy"), [("joined", "ddp"), ("static", "ddp"), ("direct", "ddp"), ("joined", "fsdp")])
def test_two_nodes_of_torchrun_train_what_one_process_trains(
    tiny_families: Path, workspace: Path, how: str, strategy: str
) -> None:
    params = params_of(batch_rows=15)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "on1") == 0
    write(external(params, strategy))
    words = ["-m", "tasks", "distill", *paths, "--out", "on2", "--receipt", "two.json"]
    whole = words if how == "direct" else ["-m", "tasks.cli", "join", "python", *words]
    with nodes(*whole, static=how == "static") as started:
        assert ended(started) == [0, 0], said()
    assert_same_training(Path("on1"), Path("on2"))
    assert largest_difference(Path("on1"), Path("on2")) < ROUNDING
    assert_told(read_json(Path("two.json")), strategy)
    assert stage(in_two(params, strategy), "distill", *paths, "--out", "launched") == 0
    assert digest(Path("on2")) == digest(Path("launched"))


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_node_of_torchrun_that_is_killed_ends_the_other_in_time(tiny_families: Path, workspace: Path, dead: int) -> None:
    values = params_of().model_dump()
    values["rounds"]["r1"]["labelled_epochs"] = 2000
    params = external(check_params(values, "params.yaml"))
    paths = student_of(params, tiny_families, workspace)
    write(params)
    with nodes("-m", "tasks.cli", "join", "python", "-m", "tasks", "distill", *paths, "--out", "out") as started:
        deadline = time.monotonic() + 120
        while not (SCRATCH / "distill@r1/steps.jsonl").exists():
            assert time.monotonic() < deadline, said()
            assert [node.poll() for node in started] == [None, None], said()
            time.sleep(0.1)
        for process in (psutil.Process(started[dead].pid), *psutil.Process(started[dead].pid).children(recursive=True)):
            process.kill()
        killed = time.monotonic()
        assert started[1 - dead].wait(timeout=ENDED_SECONDS) == 1
        print("seconds until the other had ended:", round(time.monotonic() - killed, 1))
    assert "training goes on from the last saved state" in Path(f"node{1 - dead}.log").read_text(encoding="utf-8")
