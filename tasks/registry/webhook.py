"""What MLflow sends when somebody moves an alias, and whether it was MLflow that sent it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

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
        self._seen = {one: at for one, at in self._seen.items() if now - at <= 2 * FRESH_SECONDS}
        if delivery in self._seen:
            return f"delivery {delivery} came before"
        self._seen[delivery] = now
        return None


def describe_event(body: bytes) -> str:
    """Return what a genuine delivery says, in words."""
    content: dict[str, Any] = json.loads(body)
    data = content.get("data", {})
    what = " ".join(str(data[key]) for key in ("name", "alias", "version") if data.get(key))
    return f"{content.get('entity')} {content.get('action')}: {what}"
