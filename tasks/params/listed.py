"""The params that a stage may read: those that dvc.yaml lists for it, so that it runs again when one of them changes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from tasks.entry import PIPELINE, Entry
from tasks.errors import StageError
from tasks.params.parts import Section

Known = TypeVar("Known", bound=Section)
ALWAYS = ("task", "runtime")  # what chooses the work, and where it runs: never a reason to run again


def listed_params(params: Known, entry: Entry) -> Known:
    """Return the params with the keys of a stage's entry alone; reading another raises StageError, which names it."""
    return _only(params, {*entry.params, *ALWAYS}, entry.stage, "")


def _only(section: Known, keys: Iterable[str], stage: str, prefix: str) -> Known:
    fields = type(section).model_fields
    values = {name: value for name, value in _chosen(vars(section), keys, stage, prefix).items() if name in fields}
    made: Known = _watched(type(section), stage, prefix).model_construct(_fields_set=set(values), **values)
    vars(made).clear()  # of the defaults of what is not listed
    vars(made).update(values)
    return made


def _chosen(values: Mapping[str, Any], keys: Iterable[str], stage: str, prefix: str) -> dict[str, Any]:
    """Return the listed values, of those that are listed in part the listed part."""
    below: dict[str, set[str]] = {}
    for key in keys:
        name, _, rest = key.partition(".")
        below.setdefault(name, set()).add(rest)
    return {
        name: value if "" in below[name] else _part(value, below[name], stage, f"{prefix}{name}.")
        for name, value in values.items()
        if name in below
    }


def _part(value: Any, keys: Iterable[str], stage: str, prefix: str) -> Any:
    if isinstance(value, Section):
        return _only(value, keys, stage, prefix)
    if isinstance(value, Mapping):
        return _WatchedMapping(_chosen(value, keys, stage, prefix), stage, prefix)
    return value  # null: it has no parts


@functools.cache
def _watched(kind: type[Known], stage: str, prefix: str) -> type[Known]:
    """Return a subclass of a section that tells of the keys it does not have."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __getattr__(self, name: str) -> Any:
            if name in kind.model_fields:
                _refuse(stage, f"{prefix}{name}")
            return super().__getattr__(name)

    Watched.__name__ = kind.__name__
    return Watched


class _WatchedMapping(dict[str, Any]):
    def __init__(self, values: Mapping[str, Any], stage: str, prefix: str) -> None:
        super().__init__(values)
        self._place = (stage, prefix)

    def __missing__(self, name: str) -> NoReturn:
        stage, prefix = self._place
        _refuse(stage, f"{prefix}{name}")


def _refuse(stage: str, key: str) -> NoReturn:
    raise StageError(
        stage, f"{PIPELINE}: {stage} does not list {key}, which it reads; add it to its params, or a change of it goes unnoticed"
    )
