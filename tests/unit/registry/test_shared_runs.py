"""Records of runs from two clones meet at a remote: each number stands for one, and none is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.registry.runs import read_runs, record_run
from tasks.registry.shared_runs import share_runs


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clones(tmp_path: Path) -> list[Path]:
    git(tmp_path, "init", "-q", "--bare", "remote")
    made = [tmp_path / name for name in ("ada", "bob")]
    for folder in made:
        git(tmp_path, "init", "-q", str(folder))
        git(folder, "remote", "add", "origin", str(tmp_path / "remote"))
    return made


def run(name: str, version: str) -> dict[str, object]:
    return {"model": "toy", "dvc_lock": name, "versions": {name: version}}


def names(clone: Path) -> list[str]:
    return [record["dvc_lock"] for record in read_runs(clone)]


def test_of_two_records_with_one_number_the_later_one_gets_another(clones: list[Path]) -> None:
    ada, bob = clones
    for clone, name in ((ada, "a1"), (bob, "b1"), (bob, "b2")):
        assert record_run(clone, run(name, "1"))
    assert [share_runs(clone, "origin") for clone in (ada, bob, ada)] == ["", "", ""]
    assert names(ada) == names(bob) == names(ada.parent / "remote")
    assert names(ada)[0] == "a1"
    assert sorted(names(ada)) == ["a1", "b1", "b2"]
    assert share_runs(bob, "origin") == ""
    assert len(names(bob)) == 3


def test_runs_with_nothing_to_do_in_turn_add_no_records(clones: list[Path]) -> None:
    ada, bob = clones
    for _ in range(3):
        for clone, name in ((ada, "a"), (bob, "b")):
            record_run(clone, run(name, "1"))
            assert share_runs(clone, "origin") == ""
    assert names(bob) == ["a", "b"]


def test_a_remote_that_is_down_is_told_and_costs_nothing(clones: list[Path]) -> None:
    ada, _ = clones
    record_run(ada, run("a", "1"))
    (ada.parent / "remote").rename(ada.parent / "away")
    assert "origin cannot be reached: fatal: " in share_runs(ada, "origin")
    assert names(ada) == ["a"]
