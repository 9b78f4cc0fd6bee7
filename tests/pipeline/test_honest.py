"""Honest histories of a workspace, none of which `compactlm audit` may take for tampering: no check may fail or be in doubt."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tasks.audit.walk import audit
from tests.pipeline.conftest import Command
from tests.pipeline.histories import HISTORIES, SLOW, TOGETHER, run_again_otherwise
from tests.pipeline.scene import Scene
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")


def alarms(workspace: Path, selector: str) -> list[dict[str, Any]]:
    """Return the checks of an audit that do not pass."""
    return [check for check in audit(workspace, selector)["checks"] if check["result"] != "PASS"]


@pytest.fixture
def scene(finished: Project, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Scene(finished, tmp_path, command, monkeypatch)


def test_the_histories_are_at_least_forty() -> None:
    assert len(HISTORIES) >= 40


@pytest.mark.parametrize("day", TOGETHER)
def test_histories_of_one_day_raise_no_alarm(scene: Scene, day: str) -> None:
    with contextlib.ExitStack() as stack:
        told = [stack.enter_context(contextlib.closing(HISTORIES[name](scene))) for name in TOGETHER[day]]
        moments = {(project.folder, selector) for project, selector in map(next, told)}
        for folder, selector in moments:
            assert alarms(folder, selector) == [], selector


@pytest.mark.parametrize("history", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in HISTORIES])
def test_an_honest_history_raises_no_alarm(scene: Scene, history: str) -> None:
    with contextlib.closing(HISTORIES[history](scene)) as moments:
        audited = 0
        for project, selector in moments:
            assert alarms(project.folder, selector) == [], selector
            audited += 1
    assert audited


@pytest.mark.slow
def test_an_earlier_model_whose_files_were_swept_up_is_unknown(scene: Scene) -> None:
    [*_, (project, _)] = run_again_otherwise(scene)
    assert {check["result"] for check in alarms(project.folder, "tiny/3")} == {"UNKNOWN"}
