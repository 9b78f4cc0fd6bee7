"""`compactlm run` as a person sees it: in a terminal of 80 columns, with Ctrl-C, and on a disk that cannot be written."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import psutil
import pytest

from tasks.cli.ending import EXIT_NOTHING_PASSED
from tasks.params.file import read_yaml
from tasks.running.start import only_run
from tests.tiny_project import Project, environment

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from tasks.cli.app import main; main()"]
SPINNER = "[\N{BRAILLE PATTERN BLANK}-\N{BRAILLE PATTERN DOTS-12345678}]"
STAGE = r"[a-z_]+(@r\d)?"
OURS = (
    rf"{STAGE} (executed|restored|skipped) in [\d.]+ s",
    rf"{STAGE}: .*",
    r"params\.yaml: gates: .*",
    r"params\.yaml was changed; undo with: compactlm undo",
    r"nothing to do: all \d+ stages are up to date",
    r"overhead \d+ s of \d+ s, [\d.]+ %",
    r"(result|report|next|model): .*",
    r"  r\d .*",
)


def in_terminal(project: Project, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code of `compactlm ARGUMENTS` in a terminal of 80 columns, and every line that was ever shown there."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.folder)
        os.execve(sys.executable, [*COMMAND, *arguments], {**environment(), "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1 << 16)
        except OSError:  # which is how the end looks
            break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return code, [part for part in re.split(r"[\r\n]+", text) if part.strip() and not re.match(SPINNER, part)]


def test_every_line_in_a_terminal_is_ours_and_a_change_can_be_undone(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    code, lines = in_terminal(project, "run")
    assert code == 0, lines
    assert len(lines) <= 3, lines
    assert re.fullmatch(OURS[4], lines[0])
    before = (project.folder / "params.yaml").read_bytes()
    code, lines = in_terminal(project, "run", "--set", "gates=[{metric: params_total, max: 9}]")
    assert code == EXIT_NOTHING_PASSED
    assert [line for line in lines if not any(re.fullmatch(words, line) for words in OURS)] == []
    assert "result: no round of tiny passes its gates: r1 fail, r2 fail, r3 fail" in lines
    assert "  r3 broken: total parameters: 2,682; at most 9 is asked" in lines
    assert lines[-1] == "next: compactlm report --open"
    done = project.compactlm("run", "--json")
    assert done.returncode == EXIT_NOTHING_PASSED
    assert json.loads(done.stdout)["result"]["selected"] is None
    assert project.compactlm("undo").returncode == 0
    assert (project.folder / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number: signal.Signals, finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    child = project.start("run", "--json", "--set", "rounds.r2.learning_rate=1.1e-3")
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("prune@r2"):
            break
    children = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(number)
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.splitlines()[-1] == "interrupted: `compactlm run` goes on where this stopped"
    assert json.loads(printed)["exit_code"] == 130
    psutil.wait_procs(children, timeout=5)
    assert [process for process in children if process.is_running()] == []
    with only_run(project.folder):  # no lock
        assert read_yaml(project.folder / "params.yaml")["rounds"]["r2"]["learning_rate"] == 1.1e-3
    held = project.folder / ".dvc/tmp/rwlock"
    assert not held.exists() or held.read_text() in ("", "{}")


def test_looking_writes_nothing(finished: Project, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "project").folder
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && ! touch here 2>/dev/null && exec "$@"'
    mounted = ["unshare", "-m", "bash", "-c", script, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a read-only mount needs Linux and root")

    def read_only(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*mounted, *COMMAND, *words], env=environment(), capture_output=True, text=True, check=False)

    for word in ("status", "models", "lineage", "history", "audit"):
        done = read_only(word, "--json")
        assert done.returncode == 0, (word, done.stderr)
        answer = json.loads(done.stdout)
        assert answer
        if word == "status":
            assert {row["state"] for row in answer["stages"]} == {"up to date"}
        if word == "audit":
            assert answer["result"] == "PASS"
    done = read_only("run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
