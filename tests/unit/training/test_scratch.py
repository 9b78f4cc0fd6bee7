"""What throws half-done training away: a change of what the stage depends on, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.training import scratch

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code and dvc.yaml, in which the stage distill@r1 runs."""
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "distill@r1")
    monkeypatch.setattr(scratch, "__file__", str(tmp_path / "tasks/training/scratch.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("tasks/report/page.py", True),
        ("tasks/cli/app.py", True),
        ("tasks/stages/prune.py", True),
        ("tasks/training/loop.py", False),
        ("tasks/models/checkpoint.py", False),
        ("tasks/stages/distill.py", False),
    ],
)
def test_the_key_follows_the_code_that_dvc_watches(project: Path, path: str, same: bool) -> None:
    before = scratch.scratch_key({"seed": 0})
    (project / path).write_text((project / path).read_text(encoding="utf-8") + "\n# a word more\n", encoding="utf-8")
    assert (scratch.scratch_key({"seed": 0}) == before) is same


def test_the_key_follows_the_facts(project: Path) -> None:
    assert scratch.scratch_key({"seed": 0}) != scratch.scratch_key({"seed": 1})


def test_without_a_stage_of_dvc_all_code_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    before = scratch.scratch_key({})
    (project / "tasks/report/page.py").write_text("", encoding="utf-8")
    assert scratch.scratch_key({}) != before
