"""Takes MLflow's webhooks over HTTP and shows what the last check of the registry found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tasks.registry.webhook import Doorkeeper, describe_event

MAX_BYTES: Final = 100_000


class Receiver(ThreadingHTTPServer):
    """POST of a genuine delivery calls `on_event` with what it says; GET /health is 200, or 503 while `faults` are known."""

    daemon_threads = True

    def __init__(self, host: str, port: int, secret: str, on_event: Callable[[str], None]) -> None:
        super().__init__((host, port), _Handler)
        self.door, self.on_event = Doorkeeper(secret), on_event
        self.faults: list[str] | None = None  # None: not checked yet


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10  # seconds for a sender to say what it has to say

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        if not length.isdecimal() or int(length) > MAX_BYTES:
            return self._answer(413, {"refused": f"Content-Length is needed, at most {MAX_BYTES}"})
        body = self.rfile.read(int(length))
        refusal = self.server.door.refusal(self.headers, body, time.time())  # type: ignore[arg-type]  # any case will do
        if refusal is not None:
            return self._answer(403, {"refused": refusal})
        self.server.on_event(describe_event(body))  # the check comes later: MLflow waits for this answer only
        self._answer(202, {"taken": True})

    def do_GET(self) -> None:
        if self.path != "/health":
            return self._answer(404, {"refused": "there is GET /health, and POST for MLflow"})
        faults = self.server.faults
        self._answer(503 if faults or faults is None else 200, {"differences": faults})

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: what matters is said by the check."""
