"""A tick of a schedule of a ref: real Git remote, DVC remote, Prefect server and MLflow store, and stages that take no time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.data.sources import refresh_lock
from tasks.git import commit_of
from tasks.params.file import apply_overrides, load_params
from tasks.registry.tracking import Tracker
from tasks.running.scheduled import Schedule
from tests.integration.conftest import shell

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")

pytestmark = pytest.mark.slow  # a run of all stages by DVC, twice


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def author(built: Path) -> Path:
    """A clone in which somebody works on `main` of the remote beside it; its results are at the DVC remote."""
    folder = built.parent
    params = built / "params.yaml"
    params.write_text(apply_overrides(params.read_text(), ["registry.model_name=nightly-model"], params.name))
    refresh_lock(load_params(params).sources(), built / "sources.lock")
    shell(built, sys.executable, "-m", "dvc", "repro", "-q", "--single-item", "fetch")
    shell(built, sys.executable, "-m", "dvc", "remote", "add", "-q", "--default", "shelf", str(folder / "shelf"))
    shell(built, "git", "add", "-A")
    shell(built, "git", *WHO, "commit", "-qm", "results")
    shell(folder, "git", "clone", "-q", "--bare", str(built), "remote.git")
    shell(built, "git", "remote", "add", "origin", str(folder / "remote.git"))
    shell(built, sys.executable, "-m", "dvc", "push", "-q", "--run-cache")
    return built


@pytest.fixture
def home(author: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clone that runs the schedule; its person has edits that are not committed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shell(author.parent, "git", "clone", "-q", "remote.git", "home")
    folder = author.parent / "home"
    (folder / "params.yaml").write_text("half an edit\n")
    return folder


def tick(home: Path) -> Any:
    from flows.scheduled import scheduled_run

    return scheduled_run(str(home), "nightly", "origin/main", return_state=True)


def facts(home: Path) -> dict[str, Any]:
    """Return what a person sees of their own checkout."""
    return {
        "head": commit_of(home, "HEAD"),
        "status": shell(home, "git", "status", "--porcelain"),
        "params": (home / "params.yaml").read_text(),
        "artifacts": (home / "artifacts").exists(),
    }


def test_ticks_run_the_ref_and_nothing_twice_and_leave_the_checkout_alone(author: Path, home: Path) -> None:
    before, made = facts(home), Schedule(home, "nightly", "origin/main")
    state = tick(home)  # the first result is at the remotes: nothing has to run
    assert (state.name, state.is_completed()) == ("NoChange", True), state.message
    assert facts(home) == before
    assert f"{made.branch} is at {commit_of(home, made.branch)[:12]}" in state.message
    assert shell(author, "git", "ls-remote", "origin", made.branch).split()[0] == commit_of(home, made.branch)
    # The registry is that of the home: a champion was made, by a decision that all worktrees see.
    tracker = Tracker(home, "nightly-model")
    aliases = tracker.aliases("nightly-model")
    assert set(aliases) == {"challenger", "champion"}
    assert not (made.place / ".compactlm" / "mlflow").exists()

    assert tick(home).message.startswith("origin/main is at ")  # nor has a worktree to be looked at

    # Somebody goes on, and pushes: what is not touched by that does not run again.
    params = author / "params.yaml"
    params.write_text(apply_overrides(params.read_text(), ["rounds.r2.vocabulary=11999"], params.name))
    shell(author, "git", *WHO, "commit", "-qam", "a smaller vocabulary")
    shell(author, "git", "push", "-q", "origin", "main")
    state = tick(home)
    assert (state.name, facts(home)) == ("Completed", before)
    stages = json.loads((made.place / ".compactlm/last_run.json").read_text())["stages"]
    assert {row["name"]: row["state"] for row in stages if row["state"] != "skipped"}.keys() >= {"prune@r2", "distill@r2"}
    assert {row["state"] for row in stages if row["name"].startswith(("fetch", "teacher", "prune@r1"))} == {"skipped"}
    parents = shell(home, "git", "log", "-1", "--format=%P", f"{made.branch}^").split()
    assert parents[1] == commit_of(author, "HEAD")

    # A fault is told by the state, and the result before it stays.
    result = commit_of(home, made.branch)
    params.write_text(params.read_text().replace("vocabulary: 11999", "vocabulary: none"))
    shell(author, "git", *WHO, "commit", "-qam", "a fault")
    shell(author, "git", "push", "-q", "origin", "main")
    state = tick(home)
    assert state.is_failed()
    assert "rounds.r2.vocabulary" in state.message
    assert commit_of(home, made.branch) == result


def test_the_result_of_a_machine_is_restored_on_another_one(author: Path, home: Path) -> None:
    assert tick(home).name == "NoChange"  # the person who made the first result has pushed it
    shell(author.parent, "git", "clone", "-q", "remote.git", "second")
    second = author.parent / "second"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/.compactlm/mlflow/mlflow.db"  # the team's
    try:
        assert tick(second).name == "NoChange"  # DVC brings the files of the result, so no stage is even asked
        made = Schedule(second, "nightly", "origin/main")
        assert (made.place / "artifacts/rounds/r3/verdict.json").exists()
        assert not (made.place / ".compactlm/last_run.json").exists()
        assert tick(second).message.startswith("origin/main is at ")
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
