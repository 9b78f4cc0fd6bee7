"""Which tests and cases run: in `make test`, in `make test-slow`, and on which machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from infra.cluster import postgres_program
from tasks.errors import ResourceError


def quick(cases: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return the cases, each but the `chosen` ones marked slow; every chosen one must be a case."""
    listed = list(cases)
    assert all(case in listed for case in chosen), "a case that is chosen to be quick is none of the cases"
    return [pytest.param(*_values(case), marks=() if case in chosen else pytest.mark.slow) for case in listed]


def need_postgres() -> None:
    """Skip the test where the programs of PostgreSQL are not installed."""
    try:
        postgres_program("initdb")
    except ResourceError as error:
        pytest.skip(str(error))


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
