"""A team from nothing: servers, a schedule of a branch, a worker and a reader in clones of their own; then all is killed."""

from __future__ import annotations

import pytest

from tests.marks import need_postgres
from tests.team import a_team, go_through
from tests.tiny_project import Project


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes: a run of all stages, and servers twice; beside other work it takes longer
def test_a_team_from_nothing_and_after_everything_was_killed(tiny_project: Project) -> None:
    need_postgres()
    with a_team() as team:
        go_through(team, tiny_project)
