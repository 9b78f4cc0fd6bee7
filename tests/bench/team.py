"""Seconds of a team's way from nothing: servers up, a run of all stages by a schedule and a worker, an audit, and ticks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import write_tiny_model
from tests.team import a_team, go_through
from tests.tiny_project import make_project


def measure() -> dict[str, Any]:
    """Return what took how many seconds, on a model of a few thousand weights."""
    with tempfile.TemporaryDirectory() as scratch, a_team() as team:
        teacher = Path(scratch) / "teacher"
        teacher.mkdir()
        write_tiny_model(teacher)
        found = go_through(team, make_project(Path(scratch) / "made", teacher))
    return {f"{name.replace(' ', '_')}_seconds": value for name, value in found.items()}
