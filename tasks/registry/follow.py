"""Live curves: a thread that reads steps.jsonl while a stage trains and records what is new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tasks.lineage.files import read_json_lines

INTERVAL_SECONDS: Final = 3.0


class Follower:
    """Calls `record` with the new lines of a growing file, until `stop`; for use in a `with` statement.

    A file that has not been touched since the start is left from an earlier, perhaps different, attempt: it is not read
    before the stage has taken it up again.
    """

    def __init__(self, path: Path, record: Callable[[list[dict[str, Any]]], None], interval: float = INTERVAL_SECONDS):
        self.path, self.record, self.interval = path, record, interval
        self._before = self._stamp()
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {path.parent.name}", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_mtime_ns, found.st_ino)

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.poll()
        self.poll()

    def poll(self) -> None:
        """Record the lines that have come since the last call."""
        stamp = self._stamp()
        if stamp is None or stamp == self._before:
            return
        try:
            # Whole, not from an offset: a stage that resumes cuts the file back to its last saved step.
            lines = read_json_lines(self.path)
        except FileNotFoundError:
            return  # the stage has just finished and removed it
        new = [line for line in lines if repr(line) not in self._seen]
        if new:
            self.record(new)
            self._seen.update(repr(line) for line in new)
