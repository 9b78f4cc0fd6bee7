"""Asks whether a server answers: `python -m infra.ready URL [SECONDS]`, for as long as that; exit code 0 if it does, else 1."""

from __future__ import annotations

import sys
import time
import urllib.request
from typing import Final

PAUSE_SECONDS: Final = 0.5
opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_ready(url: str, seconds: float = 0.0) -> bool:
    """Return whether an address answers without an error within some seconds; it is asked once at least."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with opener.open(url, timeout=5):
                return True
        except OSError:  # refused, no time left, or an answer that is an error
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(0 if is_ready(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0) else 1)
