"""The runner asks a stage's `check` of all params before its `run`, which sees those that dvc.yaml lists for it."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import EXIT_STAGE_ERROR, EXIT_USER_ERROR, ParamsError
from tasks.running import stage

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module in the place of `select`, in a folder with the real dvc.yaml and params.yaml."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "select")
    module = types.ModuleType("tasks.stages.select")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def put(module: types.ModuleType, run: Any, check: Any) -> None:
    run.__module__ = module.__name__
    module.run, module.check = run, check  # type: ignore[attr-defined]


def test_a_check_sees_what_the_stage_may_not(fake: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def run(params: Any, *, rounds: str) -> dict[str, Any]:
        seen.append(f"run {rounds}")
        return {"name": params.registry.model_name}

    def check(params: Any, rounds: str) -> None:
        seen.append(f"check {rounds} of {params.registry.model_name}")

    put(fake, run, check)
    assert stage.main(["select", "--rounds", "here"]) == EXIT_STAGE_ERROR
    assert seen == ["check here of compactlm-sentiment", "run here"]
    assert "dvc.yaml: select does not list registry" in capsys.readouterr().err


def test_what_a_check_refuses_does_not_run(fake: types.ModuleType) -> None:
    def run(params: Any, *, rounds: str) -> dict[str, Any]:
        raise AssertionError("ran")

    def check(params: Any) -> None:
        raise ParamsError("params.yaml: rounds.r1: no")

    put(fake, run, check)
    assert stage.main(["select", "--rounds", "here"]) == EXIT_USER_ERROR
