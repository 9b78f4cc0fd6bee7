"""`compactlm publish`, and `--rebuild`: MLflow is an index that Git and DVC can make again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tasks.audit.walk import audit
from tasks.errors import UserError
from tasks.promotion.first_champion import DECIDED
from tasks.registry.rebuild import rebuild
from tests.pipeline.conftest import Command
from tests.tampering import STORE, moved_away
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

OWN_IDS = ("model_id", "run_id", "path", "onnx_path")  # a new store makes its own


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def models(project: Project) -> list[dict[str, Any]]:
    """Return what `compactlm models --json` says, without the ids and places of one store."""
    from tasks.registry.listing import list_models
    from tasks.registry.tracking import Tracker

    return [{key: value for key, value in row.items() if key not in OWN_IDS} for row in list_models(Tracker(project.folder))]


def without_index(project: Project, folder: Path) -> Project:
    """Return a copy that has lost its index; in another place, since MLflow keeps a store it has opened."""
    made = project.copy(folder)
    shutil.rmtree(made.folder / ".compactlm/mlflow")
    return made


def test_the_index_of_one_run_is_made_again(finished: Project, command: Command, tmp_path: Path) -> None:
    before = models(finished)
    project = without_index(finished, tmp_path / "project")
    code, said, _ = command(project, "publish", "--rebuild")
    assert (code, said.splitlines()[0]) == (0, "1 runs recorded; registered:")
    assert models(project) == before
    assert [one for one in audit(project.folder, None)["checks"] if one["result"] != "PASS"] == []
    assert rebuild(project.folder, DECIDED)["lost"] == []  # once more changes nothing
    assert models(project) == before
    code, said, _ = command(project, "publish", "--json")
    assert (code, len(json.loads(said)["runs"])) == (0, 4)
    assert models(project) == before


@pytest.mark.slow
def test_two_runs_are_made_again_with_their_numbers(project: Project, tmp_path: Path) -> None:
    project.run("--set", "rounds.r3.learning_rate=4.0e-3", "--set", "promotion.gates=[]")
    assert project.compactlm("promote", "challenger").returncode == 0
    project.run("--set", "rounds.r3.learning_rate=5.0e-3")  # back: every stage is restored
    before = models(project)
    assert [(one["version"], one["aliases"]) for one in before] == [
        (1, []),
        (2, []),
        (3, ["challenger", "previous"]),
        (4, ["champion"]),
    ]
    again, poor = without_index(project, tmp_path / "again"), without_index(project, tmp_path / "poor")
    answer = rebuild(again.folder, DECIDED)
    assert (answer["lost"], answer["faults"], len(answer["runs"])) == ([], [], 3)
    assert models(again) == before
    for number in (1, 3, 4):
        assert audit(again.folder, f"tiny/{number}")["result"] == "PASS"

    shutil.copytree(poor.folder / ".dvc/cache", tmp_path / "shelf")
    with moved_away(poor.folder / ".dvc/cache/files"):  # the workspace has the last run alone, as after `dvc pull` in a clone
        with pytest.raises(
            UserError, match=r"tiny/4 cannot be made again \(no DVC remote is configured; missing are .*--give-up"
        ):
            rebuild(poor.folder, DECIDED)
        fetched = poor.copy(tmp_path / "fetched")
        answer = rebuild(poor.folder, DECIDED, give_up=True)
        assert [one["version"] for one in answer["lost"]] == ["4"]
        assert [one["version"] for one in models(poor)] == [1, 2, 3]
        fetched.dvc("remote", "add", "--local", "shelf", str(tmp_path / "shelf"))  # one that is no default
        assert rebuild(fetched.folder, DECIDED)["lost"] == []
    assert models(fetched) == before


def without_file(project: Project, name: str) -> contextlib.ExitStack:
    """Take a file out of a workspace and its cache until the end of the `with`."""
    place = project.folder / name
    md5 = hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()
    stack = contextlib.ExitStack()
    for each in (place, project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]):
        stack.enter_context(moved_away(each))
    return stack


ONNX = "artifacts/rounds/r2/exported/model.onnx"


@pytest.mark.slow
def test_a_version_that_is_lost_stops_a_rebuild_before_another_takes_its_number(
    finished: Project, command: Command, tmp_path: Path
) -> None:
    before = models(finished)
    project = without_index(finished, tmp_path / "project")
    shutil.copytree(project.folder / ".dvc/cache", tmp_path / "shelf")
    with without_file(project, ONNX):
        code, _, told = command(project, "publish", "--rebuild")
        assert (code, "tiny/2 cannot be made again" in told) == (2, True)
        assert f"missing are {ONNX}" in told
        code, _, told = command(project, "run")  # which would give the number to somebody else
        assert (code, "tiny/2 cannot be made again" in told) == (2, True)
        assert not (project.folder / STORE).exists()

        given_up = project.copy(tmp_path / "given up")
        answer = rebuild(given_up.folder, DECIDED, give_up=True)
        assert [(one["version"], one["model_sha256"]) for one in answer["lost"]] == [("2", before[1]["model_sha256"])]
        assert [one["version"] for one in models(given_up)] == [1, 3]
        assert models(given_up)[1]["aliases"] == ["challenger", "champion"]
        assert [one["version"] for one in rebuild(given_up.folder, DECIDED)["lost"]] == ["2"]  # it was said yes to once

        project.dvc("remote", "add", "--local", "shelf", str(tmp_path / "none"))
        code, _, told = command(project, "publish", "--rebuild")
        assert (code, f"missing are {ONNX}" in told) == (2, True)
        project.dvc("remote", "modify", "--local", "shelf", "url", str(tmp_path / "shelf"))
        code, said, _ = command(project, "publish", "--rebuild")
        assert (code, said.splitlines()[0]) == (0, "1 runs recorded; registered:")
        assert models(project) == before


@pytest.mark.slow
def test_a_clone_without_records_uses_the_commits(project: Project, tmp_path: Path) -> None:
    before = models(project)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    project.shell("git", "add", "-A")
    project.shell("git", *who, "commit", "-qm", "results")
    clone = Project(tmp_path / "clone")
    project.shell("git", "clone", "-q", str(project.folder), str(clone.folder))
    clone.dvc("config", "--local", "cache.dir", str(project.folder / ".dvc/cache"))
    answer = rebuild(clone.folder, DECIDED)
    assert [one["where"][:6] for one in answer["runs"]] == ["commit"]
    assert models(clone) == before


def test_a_store_of_another_history_is_refused(project: Project, command: Command) -> None:
    with contextlib.closing(sqlite3.connect(project.folder / STORE)) as connection:
        for table in ("model_versions", "model_version_tags"):
            connection.execute(f"UPDATE {table} SET version = version + 10 WHERE version = 2")
        connection.commit()
    code, _, told = command(project, "publish", "--rebuild")
    assert code == 2
    assert "tiny/12 is version 2 by the records in Git; rebuild into an empty store" in told


def test_publishing_waits_for_what_is_to_do(project: Project, command: Command) -> None:
    project.set("seed=1")
    code, _, told = command(project, "publish")
    assert code == 2
    assert "stages are not up to date, such as" in told
