"""Two clones and one registry: whoever knows fewer decisions than the registry changes no alias, and says how to learn them.

With `promotion.remote` both follow one log, and the push to it is the moment of decision.
"""

from __future__ import annotations

import logging
import os
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
from tasks.promotion.decisions import LOG, read_log, read_refs
from tasks.promotion.drift import registry_drift
from tasks.promotion.first_champion import settle_champion
from tasks.promotion.marks import BEGUN, SETTLED, StaleError, read_mark
from tasks.promotion.remote import ForkError, RemoteError
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


@pytest.fixture
def together(team: Team) -> Team:
    """Let both clones decide by the remote."""
    for tracker in (team.here, team.there):
        (tracker.workspace / "params.yaml").write_text("promotion: {remote: origin}\n", encoding="utf-8")
    return team


def at_remote(team: Team) -> list[dict[str, Any]]:
    return list(read_refs(team.remote))


def check_both(team: Team) -> list[dict[str, Any]]:
    """Return the log after asserting that clones, remote and aliases agree on it."""
    for tracker in (team.here, team.there):
        reconcile(tracker, NAME)
    log = story.check(team.here)
    assert story.check(team.there) == at_remote(team) == log
    return log


def test_clones_that_share_a_remote_decide_one_after_the_other(together: Team) -> None:
    team = together
    for number, tracker in enumerate((team.here, team.there, team.there, team.here), start=1):
        assert promote(tracker, str(number))["number"] == number
        assert at_remote(team)[-1]["candidate"]["version"] == str(number)
    assert len(check_both(team)) == 4


def test_a_clone_that_was_away_for_long_takes_the_log_and_a_new_one_too(together: Team, tmp_path: Path) -> None:
    team = together
    for version in ("1", "2", "3"):
        promote(team.here, version)
    assert reconcile(team.there, NAME) == ["3 decisions taken from origin"]
    promote(team.here, "4")
    assert promote(team.there, "5")["before"]["champion"]["version"] == "4"
    shell(tmp_path, "git", "clone", "-q", str(team.remote), "new")  # neither lines nor refs
    new = Tracker(tmp_path / "new", NAME)
    shutil.copy(team.here.workspace / "params.yaml", new.workspace)
    assert registry_drift(new, NAME).faults == []
    assert promote(new, "6")["number"] == 6
    assert len(check_both(team)) == 6


def test_a_log_of_former_times_is_brought_to_the_remote_first(team: Team, together: Team) -> None:
    (team.here.workspace / "params.yaml").rename(team.here.workspace / "aside")
    for version in ("1", "2"):
        promote(team.here, version)
    assert at_remote(team) == []
    (team.here.workspace / "aside").rename(team.here.workspace / "params.yaml")
    assert reconcile(team.here, NAME) == ["2 decisions brought to origin"]
    promote(team.there, "3")
    assert len(check_both(team)) == 3


def test_whoever_is_first_between_fetch_and_push_is_judged_against(together: Team) -> None:
    team, seen = together, []

    def slow(_candidate: Any, champion: Any) -> dict[str, Any]:
        seen.append(champion and champion["version"])
        if len(seen) == 1:
            promote(team.there, "9")
        return PASS

    assert decide(team.here, NAME, story.ask("2"), slow)["number"] == 2
    assert seen == [None, "9"]
    assert [entry["candidate"]["version"] for entry in check_both(team)] == ["9", "2"]


def test_what_died_between_push_and_aliases_is_finished_by_any_clone(together: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team = together
    promote(team.here, "1")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "commit", killed)  # the remote has it, this clone not even a ref
        with pytest.raises(KeyboardInterrupt):
            promote(team.here, "2")
    assert team.here.aliases(NAME) == {"champion": "1"}
    assert promote(team.there, "3")["before"]["champion"]["version"] == "2"
    assert [entry["candidate"]["version"] for entry in check_both(team)] == ["1", "2", "3"]


def _gone(team: Team) -> None:
    team.remote.rename(team.remote.with_name("away"))


def _refuses(team: Team) -> None:
    hook = team.remote / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho not on Fridays >&2\nexit 1\n")
    hook.chmod(0o755)


def _unnamed(team: Team) -> None:
    for tracker in (team.here, team.there):
        shell(tracker.workspace, "git", "remote", "rename", "origin", "upstream")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_gone, "origin cannot be reached: fatal: .*; nothing is decided from here"),
        (_refuses, "origin does not take the decision: .*[Nn]othing was decided"),
        (_unnamed, "'origin' is no remote of this repository; allowed: null, upstream"),
    ],
)
def test_without_the_remote_nothing_is_decided(
    together: Team, change: Any, words: str, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    team = together
    promote(team.here, "1")
    change(team)
    with pytest.raises(RemoteError, match=words):
        promote(team.here, "2")
    assert [entry["candidate"]["version"] for entry in read_log(team.here.workspace)] == ["1"]
    assert team.here.aliases(NAME) == {"champion": "1"}
    if change is not _refuses:
        settle_champion(team.here, params, "4", "r4")  # the end of a run
        assert "the champion is not settled" in caplog.text
        assert "`compactlm publish` settles it" in caplog.text
        assert team.here.aliases(NAME) == {"champion": "1", "challenger": "4"}


def test_logs_that_parted_before_they_had_a_remote_are_shown_and_left(together: Team) -> None:
    team = together
    (team.there.workspace / "params.yaml").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promotion, "settle", lambda *_: None)
        promote(team.there, "3")
    promote(team.here, "2")
    shutil.copy(team.here.workspace / "params.yaml", team.there.workspace)
    before = team.here.aliases(NAME), at_remote(team), read_log(team.there.workspace)
    fork = "decision 1 was made twice: here promote version 3 .* at origin promote version 2 .*git fetch --prune origin"
    for act in (lambda: promote(team.there, "4"), lambda: _repair(team.there)):
        with pytest.raises(ForkError, match=fork):
            act()
    assert "decision 1 was made twice" in registry_drift(team.there, NAME).faults[0]
    assert (team.here.aliases(NAME), at_remote(team), read_log(team.there.workspace)) == before


@pytest.mark.slow
def test_of_ten_promotions_at_once_in_two_clones_none_is_lost_and_no_number_is_given_twice(together: Team) -> None:
    team = together
    nursery = story.Nursery({"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]})
    try:
        commands = [[str((team.here, team.there)[version % 2].workspace), NAME, str(version)] for version in range(1, 11)]
        ends = nursery.run_all(commands)
    finally:
        nursery.process.communicate()
    assert [end for end in ends if end[0] != 0] == []
    last = at_remote(team)[-1]["candidate"]["version"]
    assert team.here.aliases(NAME)["champion"] == last  # before anything is reconciled
    log = check_both(team)
    assert sorted(int(entry["candidate"]["version"]) for entry in log) == list(range(1, 11))
    assert sorted(int(words) for _, words in ends) == list(range(1, 11))
