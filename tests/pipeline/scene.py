"""Where a history takes place, and what many of them do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.conftest import Command
from tests.tiny_project import Project

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")

RUNS = "refs/compactlm/*:refs/compactlm/*"


@dataclass(frozen=True)
class Scene:
    """Where a history takes place. What it does to `finished` it undoes itself; a `copy` is its own."""

    finished: Project
    folder: Path
    command: Command
    patch: pytest.MonkeyPatch

    def copy(self) -> Project:
        """Return the copy of the finished project that is this scene's own: the same for all histories that take place in it."""
        place = self.folder / "project"
        return Project(place) if place.exists() else self.finished.copy(place)

    def clone(self, project: Project) -> Project:
        """Return a fresh clone after a commit of the results, with Git's files and nothing else."""
        commit(project, "results")
        project.shell("git", "clone", "-q", str(project.folder), str(self.folder / "clone"))
        self.share_store(project)
        return Project(self.folder / "clone")

    def share_store(self, project: Project) -> None:
        """Let every workspace ask the MLflow store of this project from now on, as a team does."""
        self.patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.folder / '.compactlm/mlflow/mlflow.db'}")

    def must(self, project: Project, *arguments: str, code: int = 0) -> str:
        """Return what a command of ours prints; it must end with the code."""
        status, printed, errors = self.command(project, *arguments)
        assert status == code, errors
        return printed


Moments = Iterator[tuple[Project, str]]  # a workspace, and what is audited in it

History = Callable[[Scene], Moments]

CHAMPION = "tiny@champion"


def commit(project: Project, words: str) -> None:
    project.shell("git", "add", "-A")
    project.shell("git", *WHO, "commit", "-qm", words)


def take_cache(project: Project, cache: Path, kind: str) -> None:
    config = f"[cache]\n    dir = {cache}\n    type = {kind}\n"
    (project.folder / ".dvc/config.local").write_text(config, encoding="utf-8")
    project.dvc("checkout", "-q")


def edit(path: str, change: Callable[[str], str]) -> History:
    """A person edits a file: its time stamp is new."""

    def history(scene: Scene) -> Moments:
        place = scene.finished.folder / path
        backup = shutil.copy2(place, tempfile.mkdtemp(dir=scene.folder))
        try:
            text = place.read_text(encoding="utf-8")
            assert change(text) != text
            place.write_text(change(text), encoding="utf-8")
            yield scene.finished, CHAMPION
        finally:
            shutil.move(backup, place)

    return history
