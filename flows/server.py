"""The servers of Prefect and MLflow for this workspace, for as long as they are needed; they never outlive us.

And the settings of Prefect that must stand in the environment before it is imported.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from tasks.children import LOOPBACK, QUIET_MLFLOW, answers, free_port, running
from tasks.errors import ResourceError
from tasks.files import read_json, write_json

API: Final = "PREFECT_API_URL"  # names a server of Prefect that is there already
SERVING: Final = Path(".compactlm") / "serving.json"
START_SECONDS: Final = 120.0
END_SECONDS: Final = 10.0


@contextmanager
def _server(command: list[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[Any]]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running(command, END_SECONDS, env={**os.environ, **env}, **quiet) as child:
        yield child


def _wait(name: str, child: subprocess.Popen[Any], url: str) -> None:
    if answers(child, url, START_SECONDS):
        return
    if child.poll() is not None:
        raise ResourceError(f"the {name} server ended with code {child.returncode} before it answered")
    raise ResourceError(f"the {name} server did not answer within {START_SECONDS:.0f} s at {url}")


@contextmanager
def prefect_server() -> Iterator[str]:
    """Give the address of the Prefect pages: PREFECT_API_URL's server, else one of our own for this `with`."""
    given = os.environ.get(API)
    if given:
        yield given.removesuffix("/api")
        return
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    command = ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    with _server(command, own_page(url)) as child:
        _wait("Prefect", child, f"{url}/api/health")
        yield url


def own_page(url: str) -> dict[str, str]:
    """Return what makes Prefect's page ask the server it comes from; else it asks port 4200, whoever is there."""
    return {
        "PREFECT_SERVER_UI_ENABLED": "true",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_SERVE_BASE": "/",
        "PREFECT_SERVER_API_BASE_PATH": "/api",
    }


@contextmanager
def run_server() -> Iterator[Callable[[], str]]:
    """Start the server one run needs, without pages and schedules; give a function that waits for it and says its API.

    It is for the length of the `with`, and PREFECT_API_URL's server takes its place. Starting takes seconds: import
    meanwhile.
    """
    given = os.environ.get(API)
    if given:
        yield lambda: given
        return
    port = free_port()
    api = f"http://{LOOPBACK}:{port}/api"
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", LOOPBACK, "--port", str(port)]
    # Our own connections to it would be waited for until it is killed.
    command += ["--log-level", "error", "--lifespan", "on", "--timeout-graceful-shutdown", "1"]
    # What Prefect sets for the temporary servers it starts itself.
    env = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with _server(command, env) as child:

        def ready() -> str:
            _wait("Prefect", child, f"{api}/health")
            return api

        yield ready


@contextmanager
def serving(workspace: Path, api_url: str) -> Iterator[None]:
    """Leave word, for the length of the `with`, of the server at which this process serves the flows of a workspace."""
    place = workspace / SERVING
    write_json(place, {"api_url": api_url, "pid": os.getpid()})
    try:
        yield
    finally:
        if place.exists() and read_json(place)["pid"] == os.getpid():
            place.unlink()


def serving_at(workspace: Path) -> str | None:
    """Return the server with the schedules of a workspace: PREFECT_API_URL's, else that of a process which serves them now."""
    place = workspace / SERVING
    if (given := os.environ.get(API)) or not place.exists():
        return given
    known = read_json(place)
    return str(known["api_url"]) if psutil.pid_exists(int(known["pid"])) else None


@contextmanager
def mlflow_page(uri: str) -> Iterator[str]:
    """Give the address of the MLflow pages: the tracking server itself, else one of our own over the local store."""
    if uri.startswith("http"):
        yield uri
        return
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    command = ["mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    # Whatever hosts another server of the person's may answer to, the page of this one is on this machine.
    command += ["--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}"]
    # The address of a database has a password, and everybody on the machine sees the words of a command.
    with _server(command, {**QUIET_MLFLOW, "MLFLOW_BACKEND_STORE_URI": uri}) as child:
        _wait("MLflow", child, f"{url}/health")
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
    # Prefect makes the last folder only.
    Path(os.environ["PREFECT_HOME"]).expanduser().mkdir(parents=True, exist_ok=True)
