"""A copy of the repository for tests that go through the real command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.once import made_once
from tests.tiny_project import Project, make_project

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A committed project in which nothing has run; copy it before changing it."""
    return make_project(tmp_path_factory.mktemp("tiny"), tiny_model)


@pytest.fixture(scope="session")
def finished(tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after its first `compactlm run`; copy it before changing it."""

    def make(folder: Path) -> None:
        states = tiny_project.copy(folder / "project").run()
        assert set(states.values()) == {"executed"}

    made = Project(made_once(tmp_path_factory, "finished", make) / "project")
    return made.copy(tmp_path_factory.mktemp("finished") / "project")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `compactlm ARGUMENTS` of a project inside this process: exit code, standard output and standard error."""

    def run(project: Project, *arguments: str) -> tuple[int, str, str]:
        from tasks.cli.app import main

        monkeypatch.chdir(project.folder)
        monkeypatch.setattr("sys.argv", ["compactlm", *arguments])
        with pytest.raises(SystemExit) as leave:
            main()
        said = capsys.readouterr()
        return int(leave.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project that a test may change."""
    return finished.copy(tmp_path / "project")
