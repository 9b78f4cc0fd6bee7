"""Child processes: Python programs that end when we do, however we end, and servers among them that are waited for.

A child runs in a process group of its own, so Ctrl-C reaches us alone. A thread in it reads a pipe that closes when our
process ends; the group is then interrupted, and killed after its grace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
PR_SET_PDEATHSIG: Final = 1
MARGIN_SECONDS: Final = 2.0  # beyond its grace, until a group that does not kill itself is killed from here

# The names of what children are told in their environment.
ERROR_FILE: Final = "COMPACTLM_ERROR_FILE"  # where a refused stage leaves its words
STARTED: Final = "COMPACTLM_STAGE_STARTED"  # when its command began, in seconds since the epoch
WARM: Final = "COMPACTLM_WARM"  # the socket of the server that has imported what stages need
BACKEND: Final = "COMPACTLM_BACKEND"  # how the processes that train one model talk
STRATEGY: Final = "COMPACTLM_STRATEGY"  # and who of them holds which weights
GROUP: Final = "COMPACTLM_GROUP"  # the group that a command was started in by `compactlm join`, as JSON
MEETING: Final = "COMPACTLM_MEETING"  # where in the store of its group the processes of a stage meet
# For servers of MLflow: it starts seven more processes for jobs we do not have.
QUIET_MLFLOW: Final = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

# Runs `python -m MODULE ARGUMENTS` in this process; the first argument is its grace in seconds.
GUARD: Final = """
import os, runpy, signal, sys, threading, time
pipe, grace = os.dup(0), float(sys.argv[1])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
def watch():
    os.read(pipe, 1)
    if grace:
        os.killpg(0, signal.SIGINT)
        time.sleep(grace)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.argv[:] = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

local_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of our ports


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def loopback_name() -> str:
    """Return the name of the network interface on which a machine reaches itself."""
    return "lo" if sys.platform == "linux" else "lo0"


def own_path() -> str:
    """Return a PATH on which `python`, and what is installed beside it, is the one that runs us, activated or not."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def die_with_parent() -> None:
    """Have the system kill this process when the one that forked it ends; Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command: Sequence[str], grace: float, **how: Any) -> subprocess.Popen[Any]:
    """Return `python -m COMMAND` as a new child; `how` is what Popen takes besides."""
    guarded = [sys.executable, "-c", GUARD, str(grace), *command]
    return subprocess.Popen(guarded, stdin=subprocess.PIPE, start_new_session=True, **how)


def end(child: subprocess.Popen[Any], grace: float) -> None:
    """End a child and its group, kindly at first where they have `grace` seconds, and wait until it is gone."""
    assert child.stdin is not None
    child.stdin.close()  # which its guard sees
    try:
        child.wait(timeout=grace + MARGIN_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def running(command: Sequence[str], grace: float, **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run `python -m COMMAND` as a child for the length of the `with`; its group is ended with it."""
    child = start(command, grace, **how)
    try:
        yield child
    finally:
        end(child, grace)


def answers(child: subprocess.Popen[Any], url: str, seconds: float) -> bool:
    """Return whether an address of a child answers in time; False at once when the child has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with local_opener.open(url, timeout=5):
                return True
        except OSError:  # refused, no time left, or an answer that is an error
            time.sleep(0.1)
    return False
