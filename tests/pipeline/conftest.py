"""A copy of the repository for tests that go through the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_project import Project, make_project


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A committed project in which nothing has run; copy it before changing it."""
    return make_project(tmp_path_factory.mktemp("tiny"), tiny_model)
