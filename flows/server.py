"""A Prefect server of this workspace, for as long as it is needed; it never outlives us, not even after a SIGKILL.

Settings of Prefect that must stand in the environment before it is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import ResourceError

START_SECONDS = 120.0
PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Have the system end this child process when the thread that started it ends; Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def child_server(command: list[str], env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as a child process until the end of the `with`."""
    # A session of its own: Ctrl-C reaches us alone, and we end the server in order.
    child = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def page(name: str, command: list[str], url: str, health: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server as a child process until the end of the `with`; give its `url` once `health` answers."""
    with child_server(command, env) as child:
        _wait(name, child, url + health)
        yield url


def _wait(name: str, child: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ResourceError(f"the {name} server ended with code {child.returncode} before it answered")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise ResourceError(f"the {name} server did not answer within {START_SECONDS:.0f} s at {url}")


@contextmanager
def prefect_server() -> Iterator[str]:
    """Give the address of the Prefect pages: PREFECT_API_URL's server, else one of our own for this `with`."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        yield given.removesuffix("/api")
        return
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with page("Prefect", command, f"http://127.0.0.1:{port}", "/api/health") as url:
        yield url


@contextmanager
def run_server() -> Iterator[Callable[[], str]]:
    """Start the server one run needs, without pages and schedules; give a function that waits for it and says its API.

    It is for the length of the `with`, and PREFECT_API_URL's server takes its place. Starting takes seconds: import
    meanwhile.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        yield lambda: given
        return
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        "prefect.server.api.server:create_app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "error",
        "--lifespan",
        "on",
    ]
    # What Prefect sets for the temporary servers it starts itself.
    env = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with child_server(command, env) as child:

        def ready() -> str:
            _wait("Prefect", child, f"{api}/health")
            return api

        yield ready


@contextmanager
def mlflow_page(uri: str) -> Iterator[str]:
    """Give the address of the MLflow pages: the tracking server itself, else one of our own over the local store."""
    if uri.startswith("http"):
        yield uri
        return
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    # Without this it starts seven more processes for jobs we do not have.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with page("MLflow", command, f"http://127.0.0.1:{port}", "/health", env) as url:
        yield url


def configure(workspace: Path) -> None:
    """Keep Prefect's files in the workspace, telemetry off and the console quiet, unless the user chose otherwise."""
    chosen = {
        "PREFECT_HOME": str(workspace.absolute() / ".compactlm" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # our own lines are enough; the server has them all
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine needs more than the default 20
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).expanduser().mkdir(
        parents=True, exist_ok=True
    )  # Prefect makes the last folder only
