"""Which of a test's cases run in `make test`, and which wait for `make test-slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return the cases, each but the `chosen` ones marked slow; every chosen one must be a case."""
    listed = list(cases)
    assert all(case in listed for case in chosen), "a case that is chosen to be quick is none of the cases"
    return [pytest.param(*_values(case), marks=() if case in chosen else pytest.mark.slow) for case in listed]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
