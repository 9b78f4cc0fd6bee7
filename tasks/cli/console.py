"""What every command prints with: consoles for people, one JSON value for programs, and the lines of a run that works."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, Final, TextIO

import typer
from rich.console import Console
from rich.live import Live
from rich.status import Status
from rich.text import Text

from tasks.progress import PREFIX, visible


class Screen(Console):
    """A console on which text is text: a string is one line, and no character in it acts on the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a string, a cell of a table too, as rich prints it."""
        return super().render_str(visible(text), **how)

    def status(self, status: Any, **how: Any) -> Status:
        """Return rich's line with a spinner, which leaves standard output as it is.

        A library that is loaded meanwhile would keep the stand-in that rich puts there, and write its reset of colours there.
        """
        line = super().status(status, **how)
        line._live = Live(line.renderable, console=self, transient=True, redirect_stdout=False)
        return line


def shown(text: str, kept: str = "") -> Text:
    """Return text for where rich would look for its own marks in a string; `kept` are acting characters that may act."""
    return Text(visible(text, kept))


out = Screen(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Screen(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]

# What DVC says around a stage; the flow says the same in its own words.
NOISE: Final = (
    "Running stage '",
    "> ",
    "Updating lock file",
    "Use `dvc push`",
    "Stage '",
    "To track the changes",
    "\tgit add",
    "\tdvc config core.autostage",
    "To enable auto staging",
    "Generating lock file",
    "Data and pipelines are up to date",
    "ERROR: failed to reproduce '",  # told again with the stage's last lines, unless it was we who ended it
)


answers: Final[list[Any]] = []  # what programs have been told
_kept: Final[list[TextIO]] = []  # the standard output, while libraries write to another place


@contextmanager
def answers_alone() -> Iterator[None]:
    """Keep standard output for our own JSON: what a library prints goes to standard error."""
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def print_json(value: Any, indent: int | None = 1) -> None:
    """Print one JSON value for programs, at once."""
    answers.append(value)
    place = _standard_output()
    place.write(json.dumps(value, indent=indent, sort_keys=True) + "\n")
    place.flush()


def answers_file() -> TextIO:
    """Return standard output for rows of answers, which programs then have in place of one JSON value."""
    answers.append(None)
    return _standard_output()


def _standard_output() -> TextIO:
    return _kept[-1] if _kept else sys.stdout


def show(value: Any, as_json: bool, *lines: str) -> None:
    """Print one JSON value for programs, or these lines for people."""
    if as_json:
        print_json(value)
    for line in () if as_json else lines:
        out.print(line)


class RunLines(logging.Handler):
    """Prints log records to a console; lines that start with `progress:` replace each other on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self._status: Status | None = None

    def __enter__(self) -> RunLines:
        if self.console.is_terminal:
            self._status = self.console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line: a stage's with the stage's name before it."""
        line = record.getMessage()
        stage = getattr(record, "stage", None)
        if stage is not None and line.startswith(NOISE):
            if line.startswith("Running stage '") and self._status is not None:
                self._status.update(shown(stage))
            return
        if line.startswith(PREFIX):
            words = line.removeprefix(PREFIX).strip()
            if self._status is not None:
                self._status.update(shown(f"{stage or ''} {words}"))
                return
            line = words
        self.console.print(f"{stage}: {line}" if stage else line)
