"""The door to DVC, against real DVC projects."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tasks.errors import DataError, StageError
from tasks.params.file import apply_overrides
from tasks.running.dvc import BusyError, StageRunner, _fault, pending, read_graph, stage_digests


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(child: int) -> None:
    """Wait for a process to end; a killed one that nobody has collected yet has no command line any more."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_graph_lists_every_stage_after_those_it_waits_for(fresh: Path) -> None:
    stages = read_graph(fresh)
    names = [stage.name for stage in stages]
    assert names[0] == "fetch"
    assert len(names) == 23
    assert dict(zip(names, stages, strict=True))["prune@r2"].upstream == ("distill@r1",)
    for stage in stages:
        assert all(names.index(up) < names.index(stage.name) for up in stage.upstream)


def test_a_change_makes_its_stage_and_what_follows_pending(built: Path) -> None:
    stages = read_graph(built)
    assert pending(built, stages) == []
    path = built / "params.yaml"
    path.write_text(apply_overrides(path.read_text(), ["rounds.r2.ffn=500"], path.name))
    waiting = pending(built, stages)
    assert "distill@r1" not in waiting
    assert waiting[0] == "prune@r2"
    assert waiting[-1] == "report"


def test_a_stage_is_skipped_executed_or_restored(built: Path, runner: StageRunner) -> None:
    lines: list[str] = []
    assert runner.run("fetch", lines.append) == "skipped"
    lock = built / "sources.lock"
    lock.write_text('{"a": 1}\n')
    before = stage_digests(built)
    assert runner.run("fetch", lines.append) == "executed"
    assert "small stage fetch" in lines
    assert stage_digests(built)["fetch"] != before["fetch"]
    lock.write_text("{}\n")
    assert runner.run("fetch", lines.append) == "restored"
    assert stage_digests(built)["fetch"] == before["fetch"]


def test_a_stage_that_refuses_raises_its_own_error_again(fresh: Path, runner: StageRunner) -> None:
    (fresh / "misbehave.json").write_text(json.dumps({"stage": "fetch", "how": "refuse"}))
    with pytest.raises(DataError, match=r"^data.csv: column 'text' is missing$"):
        runner.run("fetch", lambda line: None)
    assert stage_digests(fresh) == {}


def test_a_stage_that_fails_gives_its_last_lines(fresh: Path, runner: StageRunner) -> None:
    (fresh / "misbehave.json").write_text(json.dumps({"stage": "fetch", "how": "crash"}))
    with pytest.raises(StageError, match="this stage has a fault"):
        runner.run("fetch", lambda line: None)


def test_stop_ends_a_running_stage_and_the_next_run_finds_no_lock(fresh: Path, runner: StageRunner) -> None:
    (fresh / "misbehave.json").write_text(json.dumps({"stage": "fetch", "how": "wait"}))
    faults: list[StageError] = []

    def work() -> None:
        try:
            runner.run("fetch", lambda line: None)
        except StageError as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(fresh / "waiting")
    child = int((fresh / "waiting").read_text())
    runner.stop()
    thread.join(timeout=20)
    assert faults
    wait_until_gone(child)
    with pytest.raises(StageError, match="being stopped"):
        runner.run("fetch", lambda line: None)
    (fresh / "misbehave.json").unlink()
    assert StageRunner(fresh).run("fetch", lambda line: None) == "executed"


def test_stages_end_when_the_process_that_runs_them_is_killed(fresh: Path) -> None:
    (fresh / "misbehave.json").write_text(json.dumps({"stage": "fetch", "how": "wait"}))
    parent = os.fork()
    if parent == 0:
        StageRunner(fresh).run("fetch", lambda line: None)
        os._exit(0)
    wait_for(fresh / "waiting")
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int((fresh / "waiting").read_text())
    wait_until_gone(child)


@pytest.mark.parametrize("line", ["ERROR: Unable to acquire lock. Most likely", "ERROR: 'a.txt' is busy, it is being blocked"])
def test_locks_are_worth_another_try(line: str) -> None:
    assert isinstance(_fault("prepare", 255, ["x", line]), BusyError)
    assert not isinstance(_fault("prepare", 1, ["Connection reset"]), BusyError)
    assert isinstance(_fault("fetch", 1, ["Connection reset by peer"]), BusyError)
