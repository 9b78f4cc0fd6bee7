"""The door to an OpenLineage endpoint: events go there by HTTP, one a request."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.errors import UserError

SEND_SECONDS: Final = 30.0


def json_line(value: Mapping[str, Any]) -> bytes:
    """Return a value as one line of sorted JSON."""
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def check_address(url: str) -> None:
    """Raise UserError unless events could be sent there by HTTP."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--openlineage {url}: not an address; write http://HOST/api/v1/lineage, or https://")


def send(events: Sequence[Mapping[str, Any]], url: str) -> None:
    """Send events in their order; UserError at the first that is not taken. Sending again is harmless: run ids stay."""
    for number, event in enumerate(events, start=1):
        request = urllib.request.Request(url, json_line(event), {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=SEND_SECONDS):
                pass
        except (urllib.error.URLError, TimeoutError) as error:
            raise UserError(
                f"--openlineage {url}: event {number} of {len(events)} was not taken ({error}); nothing was written. "
                "Try again, or leave out --openlineage: the folder has the events in a file"
            ) from None
