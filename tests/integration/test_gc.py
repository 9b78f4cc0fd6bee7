"""What nothing that stays refers to goes, and only that; what stays is whole, and the index can be made again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ResourceError, UserError
from tasks.files import digest, read_json
from tasks.git import refs_of
from tasks.params.file import apply_overrides
from tasks.promotion.decide import Request, decide
from tasks.promotion.decisions import read_log
from tasks.promotion.drift import registry_faults
from tasks.promotion.first_champion import settle_champion
from tasks.registry import retention
from tasks.registry.dropped import read_dropped
from tasks.registry.live import publish
from tasks.registry.retention import planned, remove, summary
from tasks.registry.runs import read_runs
from tasks.registry.tracking import Tracker
from tasks.running.dvc import pending, read_graph
from tasks.running.identity import take_id
from tasks.running.merge_lock import merge
from tasks.running.objects import names_here, object_path
from tasks.running.start import only_run
from tests.integration.conftest import publish_in, shell
from tests.once import made_once

NAME = "compactlm-sentiment"
AT = "2026-12-01T12:00:00Z"


def run_again(project: Path, rate: str, rounds: tuple[str, ...] = ("r3",)) -> None:
    """Change rounds, and bring everything up to date as a run does."""
    text = (project / "params.yaml").read_text(encoding="utf-8").rstrip()
    changes = [f"rounds.{name}.learning_rate={rate}" for name in rounds]
    changed = apply_overrides(text + "\n", changes, "params.yaml").rstrip()
    (project / "params.yaml").write_text(f"{changed}\n# {rate[0]}", encoding="utf-8")
    shell(project, sys.executable, "-m", "dvc", "repro", "-q")
    publish(project, settle_champion)
    shell(project, "git", "add", "-A")
    shell(project, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", rate)


@pytest.fixture(scope="session")
def thrice(tmp_path_factory: pytest.TempPathFactory, built_template: Path, store_template: Path) -> Path:
    """A project after three runs: versions 1 to 3, 4 and 5; r2 is champion, and r3 was another each time."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            project = publish_in(folder, built_template, store_template)
            run_again(project, "4.0e-3")
            run_again(project, "3.0e-3")

    return made_once(tmp_path_factory, "thrice", make) / "project"


@pytest.fixture
def project(thrice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = Path(shutil.copytree(thrice, tmp_path / "project", symlinks=True))
    take_id(made, str(read_json(thrice / ".compactlm/workspace.json")["id"]))  # as if it had been moved
    Tracker(made)  # which lets the store name its files where they are now
    return made


def gone(project: Path, keep: int, yes: bool = True) -> dict[str, Any]:
    with planned(project, keep, read_log(project)) as plan:
        answer = summary(plan)
        if yes:
            remove(project, plan, keep, AT, "tester")
    return answer


def numbers(project: Path) -> list[str]:
    return [entry.version for entry in Tracker(project, NAME).versions(NAME)]


@pytest.mark.slow
def test_a_look_changes_nothing_and_says_why_each_version_stays(project: Path) -> None:
    before = digest(project, ("run.lock",))
    answer = gone(project, 1, yes=False)
    assert digest(project, ("run.lock",)) == before
    assert [row["version"] for row in answer["versions"]] == [3, 4]
    because = {row["version"]: row["because"] for row in answer["staying"]}
    assert because[2] == ["@challenger", "@champion", "decision 1", "in the working tree", "at the tip of a branch or tag"]
    assert because[5] == ["among the newest", "in the working tree", "at the tip of a branch or tag"]
    assert answer["bytes"] == sum(part["bytes"] for part in answer["parts"].values()) > 0
    assert [row["version"] for row in gone(project, 2, yes=False)["versions"]] == [3]
    assert gone(project, 3, yes=False)["versions"] == []


@pytest.mark.slow
def test_what_goes_is_gone_and_what_stays_is_whole(project: Path) -> None:
    tracker = Tracker(project, NAME)
    stays = {entry.version: entry.tags["compactlm.model_id"] for entry in tracker.versions(NAME)}
    goes = [Path(tracker.local_model(stays.pop(number))) for number in ("3", "4")]
    whole = {number: digest(tracker.local_model(model)) for number, model in stays.items()}
    objects = names_here(project / ".dvc/cache")
    answer = gone(project, 1)
    assert [path.exists() for path in goes] == [False, False]
    left = names_here(project / ".dvc/cache")
    assert sum(objects[name] for name in objects.keys() - left.keys()) == answer["parts"]["dvc_objects"]["bytes"] > 0
    assert numbers(project) == ["1", "2", "5"]
    assert {number: digest(Tracker(project, NAME).local_model(model)) for number, model in stays.items()} == whole
    assert registry_faults(Tracker(project, NAME), NAME) == []
    assert pending(project, read_graph(project)) == []
    [dropped] = read_dropped(project)
    assert [(entry["version"], entry["round"]) for entry in dropped["versions"]] == [("3", "r3"), ("4", "r3")]
    assert sorted(read_runs(project)[-1]["versions"].values()) == ["1", "2", "5"]

    refs = refs_of(project, "refs")
    publish(project, settle_champion)  # a run with nothing to do
    assert (numbers(project), refs_of(project, "refs")) == (["1", "2", "5"], refs)
    again = gone(project, 1)
    assert (again["versions"], again["bytes"]) == ([], 0)
    assert refs_of(project, "refs") == refs

    run_again(project, "2.0e-3")
    assert numbers(project) == ["1", "2", "5", "6"]  # no number comes twice


@pytest.mark.slow
def test_a_run_of_which_nothing_stays_goes_whole(project: Path) -> None:
    for rate in ("2.0e-3", "1.0e-3"):
        run_again(project, rate, ("r1", "r2", "r3"))
    records = len(read_runs(project))
    answer = gone(project, 1)
    assert [row["version"] for row in answer["versions"]] == [3, 4, 5, 6, 7, 8]
    assert numbers(project) == ["1", "2", "9", "10", "11"]
    assert len(read_runs(project)) == records - 1
    [dropped] = read_dropped(project)
    alive = {*Tracker(project).find_runs({})}
    assert alive.isdisjoint(dropped["runs"])
    refs = refs_of(project, "refs")
    publish(project, settle_champion)
    assert (refs_of(project, "refs"), {*Tracker(project).find_runs({})}) == (refs, alive)
    assert registry_faults(Tracker(project, NAME), NAME) == []


@pytest.mark.slow
def test_what_a_decision_names_stays_even_a_refused_one(project: Path) -> None:
    refused = {"verdict": "fail", "sentence": "no", "rules": []}
    decide(Tracker(project, NAME), NAME, Request("promote", "3", "try", "tester"), lambda *_: refused)
    answer = gone(project, 1)
    assert [row["version"] for row in answer["versions"]] == [4]
    assert numbers(project) == ["1", "2", "3", "5"]


@pytest.mark.slow
def test_the_tip_of_a_branch_keeps_what_its_lock_names(project: Path) -> None:
    shell(project, "git", "branch", "kept", "HEAD~1")
    lock = shell(project, "git", "show", "kept:dvc.lock")
    here = names_here(project / ".dvc/cache")
    answer = gone(project, 1)
    assert [row["version"] for row in answer["versions"]] == [3]
    named = {name for name in here if name in lock}
    assert named
    assert all(object_path(project / ".dvc/cache", name).exists() for name in named)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["take_away", "remove_objects"])
def test_a_removal_that_was_cut_short_is_finished_by_the_next(project: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((Tracker, step) if step == "take_away" else (retention, step)), dies)
        with pytest.raises(KeyboardInterrupt):
            gone(project, 1)
    gone(project, 1)
    assert numbers(project) == ["1", "2", "5"]
    again = gone(project, 1)
    assert (again["versions"], again["bytes"], len(read_dropped(project))) == ([], 0, 1)
    assert registry_faults(Tracker(project, NAME), NAME) == []


@pytest.mark.slow
def test_a_shared_cache_and_a_shared_store_are_left_alone(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell(project, sys.executable, "-m", "dvc", "cache", "dir", "-q", str(tmp_path / "cache"))
    shutil.copytree(project / ".dvc/cache", tmp_path / "cache")
    answer = gone(project, 1, yes=False)
    assert answer["parts"]["dvc_objects"]["count"] == 0
    assert "lies outside of the project, where others may use it" in answer["notes"][0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/.compactlm/mlflow/mlflow.db")
    answer = gone(project, 1, yes=False)
    assert answer["versions"] == []
    assert answer["notes"][0].startswith("the versions of a shared MLflow server stay")


@pytest.mark.slow
def test_leftovers_go_when_nobody_can_be_at_work_on_them(project: Path) -> None:
    owned = project / ".compactlm"
    for name in ("audit-old", "audit-new", "models/.partial-old", "scratch/teacher"):
        (owned / name).mkdir(parents=True)
        (owned / name / "bytes").write_bytes(b"12345")
    hours_ago = time.time() - 2 * retention.OLD_SECONDS
    for name in ("audit-old", "models/.partial-old"):
        os.utime(owned / name, (hours_ago, hours_ago))
    answer = gone(project, 3)
    assert answer["parts"]["leftovers"] == {"count": 3, "bytes": 15}
    assert (owned / "audit-new").exists()
    assert not any((owned / name).exists() for name in ("audit-old", "models/.partial-old", "scratch/teacher"))


@pytest.mark.slow
def test_what_cannot_be_known_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--keep 0: at least 1 version of each model stays"):
        gone(project, 0)
    with only_run(project), pytest.raises(ResourceError, match="another run is under way"):
        gone(project, 1)
    shell(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{project}", "shallow")
    with pytest.raises(UserError, match=r"lacks older commits, and with them what they refer to; `git fetch --unshallow`"):
        gone(tmp_path / "shallow", 1)


@pytest.mark.slow
def test_dvc_runs_a_stage_again_that_both_sides_of_a_merge_changed(project: Path) -> None:
    ours = (project / "dvc.lock").read_text(encoding="utf-8")
    head, mark, tail = ours.partition("  select:\n")
    base, theirs = (head + mark + tail.replace("size: ", f"size: {digit}", 1) for digit in (1, 2))
    both = merge(base, ours, theirs, "dvc.lock")
    assert both.both == ["select"]
    (project / "dvc.lock").write_text(both.text, encoding="utf-8")
    assert pending(project, read_graph(project)) == ["select", "report"]
