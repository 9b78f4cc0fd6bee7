"""What can go wrong, as a tree.

CompactlmError
├── UserError            the user can mend it: exit code 2, no stack trace
│   ├── ParamsError      params.yaml (or an override) does not describe a run
│   ├── SourceError      a `pkg:`, `path:` or `hub:` source cannot be used
│   ├── DataError        the data would give a wrong or meaningless model
│   └── ResourceError    the machine lacks what the run needs (disk, memory, device)
└── StageError           a stage ended with a fault of its own: exit code 1

Every message says: which file, which key, which value, what is allowed, what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXIT_USER_ERROR = 2
EXIT_STAGE_ERROR = 1


class CompactlmError(Exception):
    """Base of everything this project raises on purpose."""


class UserError(CompactlmError):
    """The user can mend this; shown without a stack trace, exit code 2."""


class ParamsError(UserError):
    """params.yaml or an override does not describe a run."""


class SourceError(UserError):
    """A model or data source cannot be used."""


class DataError(UserError):
    """The data would give a wrong or meaningless model."""


class ResourceError(UserError):
    """The machine lacks what the run needs."""


class StageError(CompactlmError):
    """A stage failed; `stage` names it and the message carries its last lines."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage


class Faults:
    """What is wrong with a run before it starts, gathered from everything that can be looked at, to be said at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._first: type[UserError] = UserError

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the UserError that the block raises, a fault a line, and go on after it."""
        try:
            yield
        except UserError as error:
            self.add(str(error).splitlines(), type(error))

    def add(self, lines: list[str], kind: type[UserError]) -> None:
        """Keep faults of a kind, each of them once."""
        if lines and not self.lines:
            self._first = kind
        self.lines += [line for line in dict.fromkeys(lines) if line not in self.lines]

    def refuse(self) -> None:
        """Raise the faults as one error of the first one's kind; return if there are none."""
        if self.lines:
            raise self._first("\n".join(self.lines))
