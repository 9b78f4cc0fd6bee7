"""Runs recorded before the rooms of `tasks/` were there: a project that has pulled the new code audits and replays them.

`old_run/` holds a repository as commit c2ecb85 left it after a tiny run of a classifier and one of a language model, and the
objects of its DVC cache (without the pictures and fonts of Great Expectations' pages, which that package still has).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_project import ROOT, Project

OLD = Path(__file__).parent / "old_run"
MOVED = ("flows", "tasks", "dvc.yaml")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The old project after it has pulled today's code, its index in MLflow made again."""
    project = Project(tmp_path_factory.mktemp("old") / "project")
    project.folder.mkdir()
    project.shell("git", "init", "-q", "-b", "main")
    project.shell("git", "fetch", "-q", "--update-head-ok", str(OLD / "repository.bundle"), "+refs/*:refs/*")
    project.shell("git", "reset", "-q", "--hard", "main")
    cache = project.folder / ".dvc/cache/files"
    for part in sorted(OLD.glob("cache-*.tar.xz")):
        with tarfile.open(part) as archive:
            archive.extractall(cache, filter="data")
    _bring_pages(cache / "md5")
    for name in MOVED:
        place = project.folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place, ignore=ignored, copy_function=shutil.copyfile)  # as new as a pull makes them
        else:
            shutil.copyfile(ROOT / name, place)
    project.shell("git", "add", "-A")
    project.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "pulled")
    done = project.compactlm("publish", "--rebuild", "--json")
    assert done.returncode == 0, done.stderr
    return project


def _bring_pages(cache: Path) -> None:
    """Copy the files that pages of Great Expectations show, each under DVC's name for it."""
    spec = importlib.util.find_spec("great_expectations")
    assert spec is not None
    assert spec.origin is not None
    for path in Path(spec.origin).parent.rglob("static/**/*"):
        if path.is_file():
            name = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            (cache / name[:2]).mkdir(exist_ok=True)
            shutil.copyfile(path, cache / name[:2] / name[2:])


def audited(project: Project, *arguments: str) -> dict[str, Any]:
    done = project.compactlm("audit", *arguments, "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("model", ["tiny/1", "tiny-lm/1"])
def test_a_run_of_before_the_move_audits_without_a_fault(pulled: Project, model: str) -> None:
    report = audited(pulled, model)
    assert [check for check in report["checks"] if check["result"] == "FAIL"] == []
    assert {"code", "params", "pruning", "metrics", "verdict", "decision"} <= {check["name"] for check in report["checks"]}


@pytest.mark.parametrize("model", ["tiny/1", "tiny-lm/1"])
def test_a_run_of_before_the_move_replays(pulled: Project, model: str) -> None:
    report = audited(pulled, model, "--replay")
    replayed = [check for check in report["checks"] if check["name"] == "replay"]
    assert len(replayed) >= 10
    assert [check for check in replayed if check["result"] == "FAIL"] == []
    others = [
        check for check in replayed if check["result"] == "UNKNOWN" and check["subject"] != "fetch"
    ]  # whose lock has gone on
    reasons = {check["sentence"] for check in others}
    assert [words for words in reasons if not re.search("another environment|follows from other bytes", words)] == []
    passed = {check["subject"] for check in replayed if check["result"] == "PASS"}
    assert "prepare" in passed, passed  # no sum of it depends on the processor
