"""Takes MLflow's webhooks over HTTP and shows what the last check of the registry found.

What MLflow sends when somebody moves an alias, and whether it was MLflow that sent it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tasks.files import parse_object

MAX_BYTES: Final = 100_000


class Receiver(ThreadingHTTPServer):
    """POST of a genuine delivery calls `on_event` with what it says; GET /health is 200, or 503 while `faults` are known.

    `facts` gives what /health says besides.
    """

    daemon_threads = True
    facts: Callable[[], dict[str, Any]] = dict

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
        self._answer(503 if faults or faults is None else 200, {"differences": faults, **self.server.facts()})

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: what matters is said by the check."""


EVENTS: Final = ("model_version_alias.created", "model_version_alias.deleted", "model_version.created")
FRESH_SECONDS: Final = 300
HEADERS: Final = ("X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id")


def signature(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return what MLflow puts into X-MLflow-Signature: HMAC-SHA256 over `delivery.timestamp.body`, in base64."""
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


class Doorkeeper:
    """Lets each genuine delivery in once."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._seen: dict[str, float] = {}

    def refusal(self, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
        """Return why a delivery is refused; None for one that is signed, fresh and new. `now`: seconds since the epoch."""
        given, timestamp, delivery = (headers.get(name) or "" for name in HEADERS)
        # Compared as bytes: a header may hold what is not ASCII.
        if not hmac.compare_digest(given.encode(), signature(self._secret, delivery, timestamp, body).encode()):
            return "the signature is not one of our webhook"
        if not timestamp.isdecimal() or abs(now - int(timestamp)) > FRESH_SECONDS:
            return f"sent at {timestamp}, more than {FRESH_SECONDS} s from now"
        self._seen = {seen: at for seen, at in self._seen.items() if now - at <= 2 * FRESH_SECONDS}
        if delivery in self._seen:
            return f"delivery {delivery} came before"
        self._seen[delivery] = now
        return None


def describe_event(body: bytes) -> str:
    """Return what a genuine delivery says, in words."""
    try:
        content = parse_object(body)
    except ValueError:
        return "a delivery that is no JSON object"
    data = content.get("data")
    data = data if isinstance(data, dict) else {}
    what = " ".join(str(data[key]) for key in ("name", "alias", "version") if data.get(key))
    return f"{content.get('entity')} {content.get('action')}: {what}"
