"""The door to DVC, against real DVC projects."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import DataError, StageError, UserError
from tasks.params.file import apply_overrides
from tasks.running.dvc import BusyError, StageRunner, _fault, pending, read_graph, read_state, stage_digests
from tests.integration.conftest import shell


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


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_much(folder: Path) -> None:
    edit(folder / "params.yaml", "bootstrap_resamples: 2000", "bootstrap_resamples: 2001")
    edit(folder / "params.yaml", "baselines:\n", "baselines_:\n")
    edit(folder / "artifacts/rounds/r1/verdict.json", "{", "{ ")
    (folder / "artifacts/selection.json").unlink()
    (folder / "artifacts/rounds/r2/trained/more.txt").write_text("x")
    edit(folder / "dvc.yaml", "small_stages.py prepare", "small_stages.py  prepare")
    edit(folder / "dvc.yaml", "  report:\n", "  report:\n    frozen: true\n")
    edit(folder / "dvc.yaml", "  export_teacher:\n", "  export_teacher:\n    always_changed: true\n")


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "a touched file": (lambda folder: os.utime(folder / "tasks/small_stages.py"), 0),
    "much": (change_much, 12),
    "code": (lambda folder: edit(folder / "tasks/small_stages.py", "import sys", "import sys  # "), 23),
    "the cache gone": (lambda folder: shutil.rmtree(folder / ".dvc/cache"), 23),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_what_dvc_itself_says_and_asking_writes_nothing(built: Path, change: str) -> None:
    from dvc.repo import Repo

    do, count = CHANGES[change]
    do(built)
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    stages, _ = read_state(built)
    changed = pending(built, [replace(stage, upstream=()) for stage in stages])
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
    with Repo(str(built)) as repo:
        graph = {stage.name: tuple(sorted(up.name for up in repo.index.graph.successors(stage))) for stage in repo.index.stages}
        assert set(changed) == {address.rpartition(":")[2] for address in repo.status()}
    assert {stage.name: stage.upstream for stage in stages} == graph
    assert len(changed) == count


def test_files_that_dvc_add_tracks_are_no_stages(built: Path) -> None:
    (built / "rows.csv").write_text("text,label\n")
    shell(built, sys.executable, "-m", "dvc", "add", "-q", "rows.csv")
    stages, waiting = read_state(built)
    assert (len(stages), waiting) == (23, [])
    (built / "rows.csv").write_text("text,label\na,0\n")  # which is for `dvc add` to be told
    assert read_state(built)[1] == []


def test_looking_prints_nothing_in_a_terminal(fresh: Path) -> None:
    shown = b""
    child, terminal = pty.fork()
    if child == 0:
        words = "import sys; from pathlib import Path; from tasks.running.dvc import read_state; read_state(Path(sys.argv[1]))"
        os.execv(sys.executable, [sys.executable, "-c", words, str(fresh)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # DVC draws nothing without columns
    with contextlib.suppress(OSError):  # which is how the end looks
        while part := os.read(terminal, 1 << 16):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown) == b""


def test_stages_that_wait_for_each_other_are_named(fresh: Path) -> None:
    edit(
        fresh / "dvc.yaml", "    deps: [tasks/small_stages.py, sources.lock", "    deps: [artifacts/selection.json, sources.lock"
    )
    with pytest.raises(UserError, match=r"dvc.yaml: these stages wait for each other: fetch, select"):
        read_graph(fresh)


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


def test_what_dvc_tells_of_a_run_that_was_killed_is_no_line_of_a_stage(built: Path) -> None:
    gone = {"pid": 2**22 + 1, "cmd": "dvc repro"}  # above the highest number that a process gets
    held = {"read": {}, "write": {str(built / "artifacts/selection.json"): gone}}
    (built / ".dvc/tmp").mkdir(exist_ok=True)
    (built / ".dvc/tmp/rwlock").write_text(json.dumps(held), encoding="utf-8")
    (built / "artifacts/selection.json").unlink()
    told: list[str] = []
    with StageRunner(built) as runner:
        assert runner.run("select", told.append) != "skipped"
    assert [line for line in told if "RWLock" in line or "killed" in line] == []
    assert str(gone["pid"]) not in (built / ".dvc/tmp/rwlock").read_text(encoding="utf-8")
