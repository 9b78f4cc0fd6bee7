"""A real `mlflow models serve` for a moment: on a free port of this machine, gone when the answers are there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

START_SECONDS: Final = 600.0  # 6 s on an idle machine; a server that ends is not waited for
ANSWER_SECONDS: Final = 60.0

# Runs the server in its own group and takes it away when our end of the pipe is closed, however we end.
KEEPER: Final = """
import os, signal, subprocess, sys, threading
def watch():
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.exit(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL))
"""


class ServingError(Exception):
    """There are no answers; `result` is fail when that is the model's fault, hold when nobody knows."""

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


def served(model: Path, texts: list[str]) -> Any:
    """Return the `predictions` that a server of this MLflow model folder gives for texts; ServingError without any."""
    with tempfile.TemporaryDirectory(prefix="compactlm-serve-") as scratch:
        log = Path(scratch) / "server.log"
        with _server(model, log, Path(scratch)) as (process, address):
            _wait(process, address, log)
            return _ask(address, texts, log)


@contextmanager
def _server(model: Path, log: Path, scratch: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        str(model.absolute()),
        "--env-manager",
        "local",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    others = {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PYTHONPATH"}
    env = {key: value for key, value in os.environ.items() if key not in others}
    env |= {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            cwd=scratch,
            env={**env, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise ServingError("fail", f"`mlflow models serve` ended by itself: {_last_words(log)}")
        try:
            with _OPENER.open(f"{address}/ping", timeout=1.0) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise ServingError("hold", f"cannot be decided: no server within {START_SECONDS:g} s: {_last_words(log)}")


def _ask(address: str, texts: list[str], log: Path) -> Any:
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with _OPENER.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        raise ServingError(
            "fail", f"the server answers {error.code}: {error.read(200).decode(errors='replace')}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServingError("hold", f"cannot be decided: {error!r}: {_last_words(log)}") from None


_OPENER: Final = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # a proxy must not see this machine's ports


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"
