"""Honest histories of a workspace, none of which `compactlm audit` may take for tampering: no check may fail or be in doubt."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.audit import audit
from tests.pipeline.conftest import Command
from tests.tampering import moved_away
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")
History = Callable[[Project], contextlib.AbstractContextManager[Path]]  # gives the workspace to audit


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def alarms(workspace: Path, selector: str | None = None) -> list[dict[str, Any]]:
    """Return the checks of an audit that do not pass."""
    return [one for one in audit(workspace, selector)["checks"] if one["result"] != "PASS"]


@contextlib.contextmanager
def edited(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """Edit a file as a person does: its time stamp is new."""
    backup = path.with_name(path.name + ".backup")
    shutil.copy2(path, backup)
    try:
        text = path.read_text(encoding="utf-8")
        assert change(text) != text
        path.write_text(change(text), encoding="utf-8")
        yield
    finally:
        backup.replace(path)


def edit(path: str, change: Callable[[str], str]) -> History:
    @contextlib.contextmanager
    def history(project: Project) -> Iterator[Path]:
        with edited(project.folder / path, change):
            yield project.folder

    return history


def without(path: str) -> History:
    @contextlib.contextmanager
    def history(project: Project) -> Iterator[Path]:
        with moved_away(project.folder / path):
            yield project.folder

    return history


@contextlib.contextmanager
def touched(project: Project) -> Iterator[Path]:
    """Every file has another time stamp, half of them an older one."""
    for number, path in enumerate(sorted((project.folder / "artifacts").rglob("*"))):
        if path.is_file():
            os.utime(path, (0, 0) if number % 2 else None)
    yield project.folder


@contextlib.contextmanager
def renamed(project: Project) -> Iterator[Path]:
    """The folder has another name: MLflow's paths are of a folder that is gone."""
    other = project.folder.with_name("renamed")
    project.folder.rename(other)
    try:
        yield other
    finally:
        other.rename(project.folder)


@contextlib.contextmanager
def read_only(project: Project) -> Iterator[Path]:
    """Artifacts were made read-only, as an archive does."""
    files = [path for path in (project.folder / "artifacts").rglob("*") if path.is_file()]
    modes = {path: path.stat().st_mode for path in files}
    try:
        for path in files:
            path.chmod(0o444)
        yield project.folder
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


HONEST: dict[str, History] = {
    "nothing happened": lambda project: contextlib.nullcontext(project.folder),
    "the cache was emptied": without(".dvc/cache/files"),
    "the run cache was emptied": without(".dvc/cache/runs"),
    "the workspace was emptied": without("artifacts"),
    "the report was thrown away": without("artifacts/report.html"),
    "the next run is being prepared": edit("params.yaml", lambda text: text.replace("seed: 0", "seed: 1")),
    "params got a comment": edit("params.yaml", lambda text: text + "# for the next time\n"),
    "another stage's code was edited": edit("tasks/report.py", lambda text: text.replace('"""', '"""Now: ', 1)),
    "the pipeline is being changed": edit("dvc.yaml", lambda text: text + "# more to come\n"),
    "files were touched": touched,
    "the folder was renamed": renamed,
    "files were made read-only": read_only,
}


@pytest.mark.parametrize("history", HONEST)
def test_an_honest_history_raises_no_alarm(finished: Project, history: str) -> None:
    with HONEST[history](finished) as workspace:
        assert alarms(workspace, "tiny@champion") == []


def committed(project: Project) -> Project:
    """Commit what a run left, as a person does after it."""
    project.shell("git", "add", "-A")
    project.shell("git", *WHO, "commit", "-qm", "results")
    return project


def clone_of(project: Project, folder: Path) -> Project:
    """Return a fresh clone, with the records of runs and decisions as Git gives them: as files alone."""
    project.shell("git", "clone", "-q", str(project.folder), str(folder))
    return Project(folder)


def use_store_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.folder / '.compactlm/mlflow/mlflow.db'}")


def test_git_goes_on(project: Project) -> None:
    committed(project)
    project.shell("git", "tag", "shipped")
    project.shell("git", "switch", "-qc", "next")
    project.shell("git", *WHO, "commit", "-qm", "more", "--allow-empty")
    project.shell("git", "gc", "-q", "--prune=now")
    assert alarms(project.folder) == []


def test_a_clone_with_a_pulled_cache(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.dvc("remote", "add", "-q", "-d", "shelf", str(tmp_path / "shelf"))
    project.dvc("push", "-q")
    clone = clone_of(committed(project), tmp_path / "clone")
    clone.dvc("pull", "-q")
    use_store_of(project, monkeypatch)
    assert alarms(clone.folder) == []
    clone.shell("git", "fetch", "-q", "origin", "refs/compactlm/*:refs/compactlm/*")
    assert alarms(clone.folder) == []


def test_another_machines_cache_linked_into_a_clone(project: Project, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    clone = clone_of(committed(project), tmp_path / "clone")
    cache = shutil.copytree(project.folder / ".dvc/cache", tmp_path / "shared")
    clone.dvc("config", "--local", "cache.dir", str(cache))
    clone.dvc("config", "--local", "cache.type", "symlink")
    clone.dvc("checkout", "-q")
    assert (clone.folder / "artifacts/report.html").is_symlink()
    use_store_of(project, monkeypatch)
    assert alarms(clone.folder) == []


def test_a_promotion_and_a_rollback(project: Project, command: Command) -> None:
    assert command(project, "promote", "1")[0] == 2  # refused: too few rows for the rule against the champion
    assert alarms(project.folder, "tiny/1") == []
    project.set("promotion.gates=[{metric: accuracy, set: test, versus: champion, max_drop: 0.9}]")
    assert command(project, "promote", "2")[0] == 0
    for selector in ("tiny@champion", "tiny@previous", "tiny/1"):
        assert alarms(project.folder, selector) == []
    assert command(project, "rollback", "--reason", "slower than it should be")[0] == 0
    for selector in ("tiny@champion", "tiny@previous"):
        assert alarms(project.folder, selector) == []


@pytest.mark.slow
def test_a_run_after_a_change_leaves_the_earlier_model_whole(project: Project) -> None:
    project.run("--set", "rounds.r3.learning_rate=4.0e-3")
    assert alarms(project.folder, "tiny/3") == []
    assert alarms(project.folder, "tiny/4") == []
    assert json.loads(project.compactlm("run", "--json").stdout)["state"] == "no change"
    assert alarms(project.folder, "tiny/4") == []
    project.shell(sys.executable, "-m", "dvc", "gc", "-q", "-f", "-w")
    assert {one["result"] for one in alarms(project.folder, "tiny/3")} <= {"UNKNOWN"}  # its files are gone for good
    assert alarms(project.folder, "tiny/4") == []
