"""The servers of a team for tests: one stack of infra/stack.py for a session, and the command line as one of its users."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.stack import MEMORY, Stack
from tasks.params.file import apply_overrides
from tests.marks import need_postgres


@dataclass(frozen=True)
class Told:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which holds one JSON value and nothing else."""
        return json.loads(self.out)


class Team:
    """Members of a team, each at the command line of a project, on the same servers."""

    def __init__(self, stack: Stack, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack, self._patch, self._capsys = stack, patch, capsys

    def become(self, role: str, **changed: str) -> None:
        """Set the environment of a role, and what differs from it."""
        for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING", "PREFECT_API"))]:
            self._patch.delenv(name)
        for name, value in {**self.stack.environment(role), **changed}.items():
            self._patch.setenv(name, value)

    def run(self, role: str, project: Path, *arguments: str, **changed: str) -> Told:
        """Run `compactlm ARGUMENTS` in a project as somebody in a role, in this process."""
        from tasks.cli.app import main

        self.become(role, **changed)
        self._patch.chdir(project)
        self._patch.setattr("sys.argv", ["compactlm", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as leave:
            main()
        said = self._capsys.readouterr()
        return Told(int(leave.value.code or 0), said.out, said.err)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The servers: PostgreSQL, MLflow and Prefect with users, S3 in memory."""
    need_postgres()
    # Not below pytest's folder, which no other user may enter, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="compactlm-stack-") as name:
        Path(name).chmod(0o711)
        with Stack(Path(name), MEMORY) as made:
            yield made


@pytest.fixture
def team(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Team:
    return Team(stack, monkeypatch, capsys)


def named(project: Path, name: str) -> Path:
    """Return a project after its model was given a name of its own, so that it is another project of the team."""
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    gates = "[{metric: params_total, versus: teacher, max_ratio: 2.0}]"
    changes = [f"registry.model_name={name}", f"promotion.gates={gates}"]
    path.write_text(apply_overrides(text, changes, "params.yaml"), encoding="utf-8")
    return project
