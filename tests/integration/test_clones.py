"""Two clones and one registry: whoever knows fewer decisions than the registry changes no alias, and says how to learn them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import UserError
from tasks.params.base import Params
from tasks.params.file import load_params
from tasks.promotion import decide as promotion
from tasks.promotion import drift
from tasks.promotion.decide import decide, reconcile
from tasks.promotion.decisions import LOG, read_log
from tasks.promotion.drift import registry_drift
from tasks.promotion.first_champion import settle_champion
from tasks.promotion.marks import BEGUN, SETTLED, StaleError, read_mark
from tasks.registry.tracking import Tracker
from tests.integration import test_promotion as story
from tests.integration.conftest import shell

NAME, PASS = story.NAME, story.PASS
registry_template = story.registry_template
REFS = "refs/compactlm/decisions/*:refs/compactlm/decisions/*"


class Team:
    """Two clones of one repository, `here` and `there`, with one store of MLflow and one bare remote."""

    def __init__(self, folder: Path, template: Path, patch: pytest.MonkeyPatch) -> None:
        self.remote = folder / "remote.git"
        place = Path(shutil.copytree(template, folder / "here"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/.compactlm/mlflow/mlflow.db")
        shell(folder, "git", "init", "-q", "--bare", str(self.remote))
        shell(place, "git", "remote", "add", "origin", str(self.remote))
        shutil.copytree(place, folder / "there", ignore=shutil.ignore_patterns("mlflow"))
        self.here, self.there = (Tracker(folder / name, NAME) for name in ("here", "there"))

    def push(self, tracker: Tracker) -> None:
        shell(tracker.workspace, "git", "push", "-q", "origin", REFS)

    def fetch(self, tracker: Tracker) -> None:
        shell(tracker.workspace, "git", "fetch", "-q", "origin", REFS)


@pytest.fixture
def team(tmp_path: Path, registry_template: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    return Team(tmp_path, registry_template, monkeypatch)


def promote(tracker: Tracker, version: str) -> dict[str, Any]:
    return decide(tracker, NAME, story.ask(version), lambda *_: PASS)


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(story.ROOT / "params.yaml")
    return loaded.model_copy(update={"registry": loaded.registry.model_copy(update={"model_name": NAME})})


def _repair(tracker: Tracker) -> None:
    reconcile(tracker, NAME, repair=True)


def _rollback(tracker: Tracker) -> None:
    decide(tracker, NAME, promotion.Request("rollback", "1", "why", "tester"), lambda *_: PASS)


@pytest.mark.parametrize("known", [0, 1], ids=["knows none", "knows the first"])
@pytest.mark.parametrize(
    "act", [lambda there: promote(there, "3"), _rollback, _repair], ids=["promote", "rollback", "history --repair"]
)
def test_a_clone_that_was_away_takes_nothing_back(team: Team, act: Any, known: int) -> None:
    promote(team.here, "1")
    if known:
        team.push(team.here)
        team.fetch(team.there)
    promote(team.here, "2")
    before = read_log(team.there.workspace)
    with pytest.raises(
        StaleError, match=r"this clone knows (no decisions|1 decision), .* stand by decision 2 .*git fetch origin"
    ):
        act(team.there)
    assert team.here.aliases(NAME) == {"champion": "2", "previous": "1"}
    assert read_log(team.there.workspace) == before

    team.push(team.here)
    team.fetch(team.there)
    assert promote(team.there, "3")["number"] == 3
    assert team.here.aliases(NAME) == {"champion": "3", "previous": "2"}
    with pytest.raises(StaleError, match="knows 2 decisions"):
        promote(team.here, "4")


@pytest.mark.parametrize("known", [0, 1], ids=["knows none", "knows the first"])
def test_the_end_of_a_run_in_a_clone_that_was_away_leaves_every_alias(
    team: Team, known: int, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    promote(team.here, "1")
    if known:
        team.push(team.here)
        team.fetch(team.there)
    promote(team.here, "2")
    team.here.set_alias(NAME, "challenger", "5")
    before = team.here.aliases(NAME)
    with caplog.at_level(logging.WARNING, "compactlm"):
        settle_champion(team.there, params, "4", "r4")
    assert "every alias is left as it is: toy: this clone knows" in caplog.text
    assert team.here.aliases(NAME) == before
    assert len(read_log(team.there.workspace)) == known  # none adopted, none made
    settle_champion(team.here, params, "4", "r4")
    assert team.here.aliases(NAME) == {**before, "challenger": "4"}


def test_what_is_checked_in_a_clone_that_was_away_is_no_drift_that_could_be_repaired(team: Team) -> None:
    promote(team.here, "1")
    team.push(team.here)
    team.fetch(team.there)
    promote(team.here, "2")
    found = registry_drift(team.there, NAME)
    assert found.sentence(NAME).count("git fetch origin") == 1
    assert drift.REPAIR not in found.sentence(NAME)
    assert registry_drift(team.here, NAME).faults == []


def test_a_promotion_that_died_half_way_is_known_to_others(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(team.here, "1")
    team.push(team.here)
    team.fetch(team.there)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "describe_newest", killed)  # the aliases have moved, and nothing says that they are settled
        with pytest.raises(KeyboardInterrupt):
            promote(team.here, "2")
    begun, settled = (read_mark(team.here.model_tag(NAME, tag)) for tag in (BEGUN, SETTLED))
    assert begun is not None
    assert settled is not None
    assert (begun.number, settled.number) == (2, 1)
    for act in (lambda: promote(team.there, "3"), lambda: _repair(team.there)):
        with pytest.raises(StaleError, match="stand by decision 2"):
            act()
    assert team.here.aliases(NAME)["champion"] == "2"
    assert reconcile(team.here, NAME) == []
    assert registry_drift(team.here, NAME).faults == []


def test_one_number_decided_in_two_clones_is_found_and_neither_is_written_over(team: Team) -> None:
    promote(team.here, "1")
    team.push(team.here)
    team.fetch(team.there)
    promote(team.here, "2")
    with pytest.MonkeyPatch.context() as patch:  # at the same moment, so that neither could know
        patch.setattr("tasks.promotion.marks.stale", lambda *_: None)
        patch.setattr(promotion, "settle", lambda *_: None)
        promote(team.there, "3")
    fork = "decision 2 was made twice: here promote version 3 .* by decision 2 of .* by tester .*git fetch --prune origin"
    for act in (lambda: promote(team.there, "4"), lambda: _repair(team.there)):
        with pytest.raises(StaleError, match=fork):
            act()
    assert "decision 2 was made twice" in registry_drift(team.there, NAME).faults[0]
    assert team.here.aliases(NAME) == {"champion": "2", "previous": "1"}

    team.push(team.here)
    team.fetch(team.there)  # Git replaces the ref of a blob without asking: the lines still tell the other story
    with pytest.raises(UserError, match=r"from decision 2 on: promote version 3 .* in the file, promote version 2 "):
        read_log(team.there.workspace)
    shell(team.there.workspace, "git", "fetch", "-q", "--prune", "origin", REFS)
    (team.there.workspace / LOG).unlink()
    _repair(team.there)
    assert promote(team.there, "3")["number"] == 3


def test_a_decision_that_nobody_has_any_more_is_dropped_by_its_name_alone(team: Team) -> None:
    promote(team.here, "1")
    team.push(team.here)
    team.fetch(team.there)
    lost = promote(team.here, "2")["sha256"][:12]
    shutil.rmtree(team.here.workspace / ".git")
    with pytest.raises(StaleError, match=f"nobody has it any more, compactlm history --repair --drop {lost} puts"):
        _repair(team.there)
    with pytest.raises(StaleError):
        reconcile(team.there, NAME, repair=True, drop="0123456789ab")
    assert team.there.aliases(NAME)["champion"] == "2"
    assert reconcile(team.there, NAME, repair=True, drop=lost) == [
        "set right: alias previous points at version 1; the log says nothing",
        "set right: alias champion points at version 2; the log says version 1",
    ]
    assert promote(team.there, "3")["number"] == 2


def test_marks_of_former_versions_are_read_and_made_whole(team: Team) -> None:
    promote(team.here, "1")
    team.here.set_model_tag(NAME, SETTLED, "1")
    assert reconcile(team.here, NAME) == []
    team.here.set_alias(NAME, "champion", "7")
    with pytest.raises(UserError, match="moved without a decision"):
        reconcile(team.here, NAME)
    _repair(team.here)
    promote(team.here, "2")
    mark = read_mark(team.here.model_tag(NAME, SETTLED))
    assert mark is not None
    assert (mark.number, mark.sha256) == (2, read_log(team.here.workspace)[-1]["sha256"])
    assert mark.words.endswith("by tester")
