"""A team from nothing: servers, a schedule of a branch, a worker and a reader in clones of their own; then all is killed."""

from __future__ import annotations

import pytest

from infra.cluster import postgres_program
from tasks.errors import ResourceError
from tests.team import a_team, go_through
from tests.tiny_project import Project


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes: a run of all stages, and servers twice; beside other work it takes longer
def test_a_team_from_nothing_and_after_everything_was_killed(tiny_project: Project) -> None:
    try:
        postgres_program("initdb")
    except ResourceError as error:
        pytest.skip(str(error))
    with a_team() as team:
        seconds = go_through(team, tiny_project)
    assert seconds["tick with nothing new"] < seconds["run of all stages"]
