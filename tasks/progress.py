"""Progress a person can follow: one line every two seconds, on standard error, readable in any log."""

from __future__ import annotations

import sys
import time
import unicodedata
from typing import Final

INTERVAL_SECONDS: Final = 2.0
ACTING: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's kinds of characters that do something instead of being seen
JOINERS: Final = "\u200c\u200d"  # of letters in some scripts
PREFIX: Final = "progress:"  # the flow and the command line recognise progress lines by it


class Progress:
    """Prints `progress: LABEL 120/400 30% loss 0.213 eta 0:42`, at most every two seconds and once at the end."""

    def __init__(self, label: str, total: int, unit: str = "steps") -> None:
        self.label, self.total, self.unit = label, max(total, 1), unit
        self._start = self._last = time.monotonic()
        self._first_done: int | None = None

    def update(self, done: int, **facts: float) -> None:
        """Report that `done` of the total is finished; `facts` are short numbers worth watching."""
        if self._first_done is None:
            self._first_done = done
        now = time.monotonic()
        if done < self.total and now - self._last < INTERVAL_SECONDS:
            return
        self._last = now
        advanced = done - self._first_done
        eta = (self.total - done) * (now - self._start) / advanced if advanced > 0 else float("nan")
        words = [f"{self.label} {done:,}/{self.total:,} {self.unit} {100 * done / self.total:.0f}%"]
        words += [f"{name} {value:.4g}" for name, value in facts.items()]
        if done < self.total and eta == eta:
            words.append(f"eta {int(eta) // 60}:{int(eta) % 60:02d}")
        say(f"{PREFIX} {'  '.join(words)}")


def say(line: str) -> None:
    """Print one line to standard error at once, or the lines of an error."""
    print(visible(line, kept="\n\t"), file=sys.stderr, flush=True)  # noqa: T201 - the one place where stages speak


def visible(text: str, kept: str = "") -> str:
    """Return a text whose acting characters, but for those `kept`, are written out, such as `\\x1b`.

    None of them then ends a line, moves the cursor, colours, or turns the direction of reading.
    """
    if text.isprintable():
        return text
    kept += JOINERS
    return "".join(
        char if char in kept or unicodedata.category(char) not in ACTING else char.encode("unicode_escape").decode()
        for char in text
    )
