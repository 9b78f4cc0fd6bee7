"""A stage sees the params that dvc.yaml lists for it, and anything else is an error that says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.entry import Entry, entry_of
from tasks.errors import StageError
from tasks.params.classification import ClassificationParams
from tasks.params.file import load_params
from tasks.params.listed import listed_params

ROOT = Path(__file__).resolve().parents[3]


def seen(stage: str, *keys: str) -> ClassificationParams:
    params = load_params(ROOT / "params.yaml")
    assert isinstance(params, ClassificationParams)
    return listed_params(params, Entry(stage, keys, ()))


def test_listed_params_are_as_they_were() -> None:
    whole, part = (load_params(ROOT / "params.yaml"), seen("prune@r2", "seed", "data", "rounds.r2", "evaluate.latency_tokens"))
    assert isinstance(part, ClassificationParams)
    assert (part.task, part.seed, part.data, part.runtime) == (whole.task, whole.seed, whole.data, whole.runtime)
    assert part.rounds["r2"] == whole.rounds["r2"]
    assert part.data.measured_sets == whole.data.measured_sets
    assert part.evaluate.model_dump() == {"latency_tokens": whole.evaluate.latency_tokens}
    assert part.rounds["r2"].model_copy(update={"layers": 1}).layers == 1


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (lambda params: params.registry.model_name, "registry"),
        (lambda params: params.rounds["r1"], "rounds.r1"),
        (lambda params: params.evaluate.confidence, "evaluate.confidence"),
        (lambda params: getattr(params, "gates", None), "gates"),  # a default does not hide it
        (lambda params: hasattr(params, "promotion"), "promotion"),
        (lambda params: params.sources(), "teacher"),
    ],
)
def test_another_is_an_error_that_names_it(read: object, key: str) -> None:
    params = seen("prune@r2", "seed", "data", "rounds.r2", "evaluate.latency_tokens")
    with pytest.raises(StageError, match=rf"dvc\.yaml: prune@r2 does not list {key}, which it reads"):
        read(params)  # type: ignore[operator]


def test_a_default_of_the_schema_stands_for_nothing_that_is_not_listed() -> None:
    target = seen("trial@r2-1", "rounds.r2.learning_rate").rounds["r2"]
    assert target.learning_rate == load_params(ROOT / "params.yaml").rounds["r2"].learning_rate  # type: ignore[attr-defined]
    with pytest.raises(StageError, match=r"rounds\.r2\.schedule"):
        target.schedule  # noqa: B018


def test_entries_are_read_as_dvc_reads_them() -> None:
    entry = entry_of("trial@r2-13", ROOT)
    assert entry is not None
    assert {"rounds.r2.learning_rate", "seed"} <= set(entry.params)
    assert not [key for key in entry.params if "$" in key]
    assert entry_of("teacher@r1", ROOT / "tasks") is None
    assert entry_of("no_such_stage", ROOT) is None
