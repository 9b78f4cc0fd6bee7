"""A real `mlflow models serve` for a moment: on a free port of this machine, gone when the answers are there."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tasks.children import LOOPBACK, QUIET_MLFLOW, answers, free_port, local_opener, own_path, running
from tasks.data.pairs import SECOND, Text

START_SECONDS: Final = 600.0  # 6 s on an idle machine; a server that ends is not waited for
ANSWER_SECONDS: Final = 60.0
OTHERS: Final = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PYTHONPATH")  # a server needs the model's folder alone


class ServingError(Exception):
    """There are no answers; `result` is fail when that is the model's fault, hold when nobody knows."""

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


def served(model: Path, texts: Sequence[Text]) -> Any:
    """Return the `predictions` that a server of this MLflow model folder gives for texts or pairs; ServingError without any."""
    port = free_port()
    address = f"http://{LOOPBACK}:{port}"
    command = ["mlflow", "models", "serve", "--model-uri", str(model.absolute()), "--env-manager", "local"]
    command += ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    env = {key: value for key, value in os.environ.items() if key not in OTHERS}
    env |= {**QUIET_MLFLOW, "PATH": own_path(), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="compactlm-serve-") as scratch:
        log = Path(scratch) / "server.log"
        with log.open("wb") as out, running(command, 0, stdout=out, stderr=out, cwd=scratch, env=env) as child:
            if answers(child, f"{address}/ping", START_SECONDS):
                return _ask(address, texts, log)
            if child.poll() is not None:
                raise ServingError("fail", f"`mlflow models serve` ended by itself: {_last_words(log)}")
            raise ServingError("hold", f"cannot be decided: no server within {START_SECONDS:g} s: {_last_words(log)}")


def _ask(address: str, texts: Sequence[Text], log: Path) -> Any:
    pairs = [{"text": text[0], SECOND: text[1]} for text in texts if isinstance(text, tuple)]
    body = json.dumps({"dataframe_records": pairs} if pairs else {"inputs": texts}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with local_opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        words = error.read(200).decode(errors="replace")
        raise ServingError("fail", f"the server answers {error.code}: {words}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServingError("hold", f"cannot be decided: {error!r}: {_last_words(log)}") from None


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"
