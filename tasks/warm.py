"""A warm start for stages: one process imports torch and transformers once, and forks a child for each stage.

Importing them takes seconds, and a run has some fifteen stages that need them. The flow starts this server and passes
its socket in `COMPACTLM_WARM`; `python -m tasks STAGE` then hands its arguments, environment and standard streams over
and waits. Nothing else changes: without the variable, when the server does not answer, or when code that it has loaded was
changed since, the stage runs in a process of its own.
Linux only, because a child must die with its parent. The server ends when its standard input closes, so it never
outlives the flow.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.children import WARM, die_with_parent
from tasks.lineage.loaded import AT_IMPORT, Code, changed, code_on_disk, listed, loaded_files
from tasks.progress import say

REQUEST_BYTES: Final = 1 << 20
ANSWER_BYTES: Final = 4096
STREAMS: Final = 3
OTHER: Final = "other code: "  # the answer of a server that has loaded what is no longer there


@contextlib.contextmanager
def warm_server(workspace: Path) -> Iterator[dict[str, str]]:
    """Start a server for the length of a `with` and give the environment through which stages find it."""
    if sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="compactlm-") as folder:
        place = Path(folder) / "warm"
        command = [sys.executable, "-m", "tasks.warm", str(place)]
        # A session of its own: Ctrl-C reaches the flow alone, which ends its stages in order.
        server = subprocess.Popen(command, cwd=workspace, stdin=subprocess.PIPE, start_new_session=True)
        assert server.stdin is not None
        try:
            yield {WARM: str(place)}
        finally:
            server.stdin.close()
            server.wait()


def run_warm(argv: Sequence[str]) -> int | None:
    """Return the exit code of a stage run by the warm server, or None when there is no server to run it."""
    place = os.environ.get(WARM)
    if not place or not Path(place).exists():
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with _address(Path(place)) as address:
                connection.connect(address)
        except OSError:
            return None
        request = json.dumps({"argv": list(argv), "cwd": str(Path.cwd()), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [request], [0, 1, 2])
        answer = connection.recv(ANSWER_BYTES).decode()
    if answer.startswith(OTHER):
        say(f"code has changed since this run began: {answer.removeprefix(OTHER)}; this stage loads it anew")
        return None
    return int(answer) if answer else 1


@contextlib.contextmanager
def _address(place: Path) -> Iterator[str]:
    """Give a name of a socket that the system takes: it has room for 107 bytes, and TMPDIR may be longer."""
    folder = os.open(place.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


def serve(place: Path) -> None:
    """Serve until standard input closes; `place` is the path of the socket to make."""
    _preload()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        with _address(place) as address:
            listener.bind(address)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ, "request")
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "end")
        children: dict[int, tuple[int, socket.socket]] = {}
        while True:
            for key, _ in selector.select():
                if key.data == "end":
                    if not os.read(sys.stdin.fileno(), 4096):
                        for child, _connection in children.values():
                            os.kill(child, signal.SIGKILL)
                        return
                elif key.data == "request":
                    _start(listener, selector, children)
                else:
                    _finish(key.data, selector, children)


def _preload() -> None:
    """Import what most stages import; no thread is started by it, so forking afterwards is safe."""
    import pandas  # noqa: F401
    import torch  # noqa: F401
    from transformers.models.bert import modeling_bert  # noqa: F401

    import tasks.models.checkpoint
    import tasks.running.stage  # noqa: F401


def _start(listener: socket.socket, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]) -> None:
    connection, _ = listener.accept()
    message, streams, _, _ = socket.recv_fds(connection, REQUEST_BYTES, STREAMS)
    now = code_on_disk()
    if other := changed(AT_IMPORT, now, loaded_files()):
        for stream in streams:
            os.close(stream)
        with connection, contextlib.suppress(OSError):  # the client may be gone
            connection.send(f"{OTHER}{listed(other)}".encode())
        return
    child = os.fork()
    if child == 0:
        _become_stage(json.loads(message), streams, now)
    for stream in streams:
        os.close(stream)
    handle = os.pidfd_open(child)
    children[handle] = (child, connection)
    selector.register(handle, selectors.EVENT_READ, handle)
    # the client's end closes early only when it was killed: its stage dies with it
    selector.register(connection, selectors.EVENT_READ, handle)


def _finish(handle: int, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]) -> None:
    if handle not in children:
        return
    child, connection = children[handle]
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended == 0:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    del children[handle]
    selector.unregister(handle)
    selector.unregister(connection)
    os.close(handle)
    code = os.waitstatus_to_exitcode(status)
    with connection, contextlib.suppress(OSError):  # the client may be gone
        connection.send(str(code if code >= 0 else 128 - code).encode())


def _become_stage(request: dict[str, Any], streams: Sequence[int], code: Code) -> None:
    """Run the stage in this freshly forked process, which loads the rest of its code from now on, and leave it; never returns."""
    die_with_parent()
    status = 1
    with _last_words():
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        from tasks.running.stage import main

        status = main(request["argv"], code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """Print what would have ended a process of its own, as Python does, so that the child always leaves by `_exit`."""
    try:
        yield
    except SystemExit as leave:
        if leave.code not in (0, None):
            sys.stderr.flush()
            os._exit(leave.code if isinstance(leave.code, int) else 1)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the interpreter's own last handler, which this stands for
        sys.excepthook(*sys.exc_info())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
