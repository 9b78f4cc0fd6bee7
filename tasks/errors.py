"""What can go wrong, as a tree.

CompactlmError
├── UserError            the user can mend it: exit code 2, no stack trace
│   ├── ParamsError      params.yaml (or an override) does not describe a run
│   ├── SourceError      a `pkg:`, `path:` or `hub:` source cannot be used
│   ├── DataError        the data would give a wrong or meaningless model
│   ├── ResourceError    the machine lacks what the run needs (disk, memory, device)
│   ├── AwayError        a server does not answer; what it was told can be told later
│   └── RightsError      a server does not know the user, or refuses what was asked
└── StageError           a stage ended with a fault of its own: exit code 1

Every message says: which file, which key, which value, what is allowed, what to do next.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EXIT_USER_ERROR = 2
EXIT_STAGE_ERROR = 1
EXIT_INTERRUPTED = 130
TRACE: Final = "COMPACTLM_TRACE"  # set, it shows the whole trace of what is explained without


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


class AwayError(UserError):
    """A server does not answer."""


class RightsError(UserError):
    """A server does not know the user, or refuses what was asked."""


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


_BROKEN: Final = "not readable; take it back with `dvc checkout` or `git checkout`, or make it again"
_REACH: Final = "no answer; is the server up that MLFLOW_TRACKING_URI or PREFECT_API_URL names? Unset it to use our own"
_REFUSED: Final = "set PREFECT_API_AUTH_STRING to USER:PASSWORD of that server, or ask whoever manages it"
_BUSY: Final = "the database; another process may hold it, or its disk be full or read-only: try again"
# What libraries raise for faults outside of us, and what a person is told beside their words. First match counts.
_OUTSIDE: Final = (
    ("mlflow.exceptions", "MlflowException", "MLflow; `compactlm publish --rebuild` makes its records again"),
    ("dvc.exceptions", "DvcException", "DVC; `dvc status` and `dvc doctor` say more"),
    ("prefect.exceptions", "PrefectException", "Prefect; is the server up that PREFECT_API_URL names? Unset it to use our own"),
    ("great_expectations.exceptions", "GreatExpectationsError", "Great Expectations could not check the data"),
    ("httpx", "HTTPError", _REACH),
    ("requests.exceptions", "RequestException", _REACH),
    ("urllib.error", "URLError", _REACH),
    ("sqlalchemy.exc", "SQLAlchemyError", _BUSY),
    ("sqlite3", "Error", _BUSY),
    ("safetensors", "SafetensorError", f"weights {_BROKEN}"),
    ("pyarrow.lib", "ArrowException", f"a Parquet file {_BROKEN}"),
    ("pandas.errors", "ParserError", f"a table {_BROKEN}"),
    ("pandas.errors", "EmptyDataError", f"a table {_BROKEN}"),
    ("ruamel.yaml.error", "YAMLError", f"YAML {_BROKEN}"),
    ("yaml", "YAMLError", f"YAML {_BROKEN}"),
    ("json", "JSONDecodeError", f"JSON {_BROKEN}"),
    ("builtins", "UnicodeDecodeError", f"not UTF-8, so {_BROKEN}"),
    ("builtins", "RecursionError", f"nested too deeply, so {_BROKEN}"),
    ("builtins", "MemoryError", "no memory left; close other programs, or take smaller batches"),
    ("builtins", "OSError", "the system refused it; mend that and call again"),
)


# The user and the password of an address; a password may hold `/` or `@` where somebody forgot to quote them.
_PASSWORD: Final = re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s'\"]*@|(?<=://)[^\s/@:'\"]+@")


def without_passwords(text: str) -> str:
    """Return a text in which no address names a user or a password: https://me:secret@host becomes https://host."""
    return _PASSWORD.sub("", text)


def outside_errors() -> tuple[type[BaseException], ...]:
    """Return the classes of errors of libraries that a person can mend; only what is imported can have raised one."""
    return tuple(kind for kind, _ in _loaded())


def explained(error: BaseException) -> str:
    """Return such an error as a sentence: what it concerns, its own first line, what to do."""
    words = next(words for kind, words in _loaded() if isinstance(error, kind))
    answer = getattr(error, "response", None)
    if type(error).__module__.startswith(("prefect", "httpx")) and getattr(answer, "status_code", 0) in (401, 403):
        words = _REFUSED
    line = without_passwords(next(iter(str(error).strip().splitlines()), type(error).__name__))
    place = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    return f"{place}{line} ({words}; {TRACE}=1 shows where)"


def _loaded() -> Iterator[tuple[type[BaseException], str]]:
    for module, name, words in _OUTSIDE:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type):
            yield kind, words
