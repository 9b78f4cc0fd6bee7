"""A Prefect server of this workspace, for as long as it is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import ResourceError

START_SECONDS = 120.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def page(name: str, command: list[str], url: str, health: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server as a child process until the end of the `with`; give its `url` once `health` answers."""
    # A session of its own: Ctrl-C reaches us alone, and we end the server in order.
    child = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        _wait(name, child, url + health)
        yield url
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait(name: str, child: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ResourceError(f"the {name} server ended with code {child.returncode} before it answered")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise ResourceError(f"the {name} server did not answer within {START_SECONDS:.0f} s at {url}")


@contextmanager
def prefect_server() -> Iterator[str]:
    """Give the address of the Prefect pages: PREFECT_API_URL's server, else one of our own for this `with`."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        yield given.removesuffix("/api")
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with page("Prefect", command, url, "/api/health"):
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        try:
            yield url
        finally:
            del os.environ["PREFECT_API_URL"]


@contextmanager
def mlflow_page(uri: str) -> Iterator[str]:
    """Give the address of the MLflow pages: the tracking server itself, else one of our own over the local store."""
    if uri.startswith("http"):
        yield uri
        return
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1"]  # fmt: skip
    # Without this it starts seven more processes for jobs we do not have.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with page("MLflow", command, f"http://127.0.0.1:{port}", "/health", env) as url:
        yield url
