"""Child processes: they are waited for, end with their whole group, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tasks.children import LOOPBACK, answers, end, free_port, local_opener, running, start

SERVER = ["http.server", "--bind", LOOPBACK]
# A program that ignores the interrupt and has a child of its own, whose id it writes to a file.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


def program(folder: Path) -> list[str]:
    (folder / "stubborn.py").write_text(STUBBORN)
    return ["stubborn", str(folder / "grandchild")]


def grandchild(folder: Path) -> int:
    """Return the id that the program has written."""
    return int(waited_for(lambda: (folder / "grandchild").exists() and (folder / "grandchild").read_text()))


def waited_for(what: object) -> str:
    deadline = time.monotonic() + 60
    while not (found := what()):  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(found)


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has collected yet has no command line any more."""
    place = Path(f"/proc/{pid}/cmdline")
    return not place.exists() or not place.read_bytes()


def test_a_server_is_waited_for_and_ended(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}/"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running([*SERVER, str(port)], 10.0, cwd=tmp_path, **quiet) as child:
        assert answers(child, url, 60)
        assert local_opener.open(url, timeout=5).status == 200
    assert child.poll() is not None


def test_a_child_that_ends_or_says_nothing_is_not_waited_for_longer() -> None:
    url = f"http://{LOOPBACK}:{free_port()}/"
    with running(["no_such_module"], 0, stderr=subprocess.DEVNULL) as child:
        assert not answers(child, url, 600)
        assert child.poll() == 1
    with running(["http.server", "--bind", LOOPBACK, str(free_port())], 0, stdout=subprocess.DEVNULL) as child:
        assert not answers(child, url, 0.3)
        assert child.poll() is None


def test_a_group_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = start(program(tmp_path), 0.5, cwd=tmp_path)
    other = grandchild(tmp_path)
    began = time.monotonic()
    end(child, 0.5)
    assert time.monotonic() - began < 10
    assert child.returncode == -signal.SIGKILL
    waited_for(lambda: is_gone(other))


def test_a_group_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = program(tmp_path)
    parent = os.fork()
    if parent == 0:
        start(command, 0.1, cwd=tmp_path)
        time.sleep(600)
        os._exit(0)
    other = grandchild(tmp_path)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    waited_for(lambda: is_gone(other))
