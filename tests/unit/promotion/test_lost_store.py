"""A run that finds MLflow's store gone makes it again first, from the records in Git."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.promotion import first_champion
from tasks.promotion.first_champion import rebuild_lost
from tasks.registry.runs import record_run

RUN = {"model": "tiny", "versions": {"a": "1"}}


@pytest.fixture
def rebuilt(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The projects whose index was made again."""
    done: list[Path] = []

    def rebuild(workspace: Path, decided: Any, say: Any) -> dict[str, Any]:
        done.append(workspace)
        return {"lost": [{"model": "tiny", "version": "1", "why": "its files are nowhere"}], "faults": ["a fault"]}

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(first_champion, "rebuild_locked", rebuild)
    return done


def test_a_lost_store_is_made_again_and_said(tmp_path: Path, rebuilt: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    rebuild_lost(tmp_path)
    assert rebuilt == []  # nothing was ever recorded
    assert record_run(tmp_path, RUN)
    with caplog.at_level(logging.WARNING, "compactlm"):
        rebuild_lost(tmp_path)
    assert rebuilt == [tmp_path]
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("MLflow's store is gone: sqlite:///")
    assert said[1:] == ["registry: tiny/1: its files are nowhere", "registry: a fault"]


def test_a_store_that_is_there_or_elsewhere_is_left_alone(
    tmp_path: Path, rebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert record_run(tmp_path, RUN)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    rebuild_lost(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / ".compactlm/mlflow").mkdir(parents=True)
    (tmp_path / ".compactlm/mlflow/mlflow.db").touch()
    rebuild_lost(tmp_path)
    assert rebuilt == []
