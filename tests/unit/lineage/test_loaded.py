"""Code that changes while a process works is known by what was loaded, and what a stage made meanwhile is not kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.lineage.begun import begin
from tasks.lineage.loaded import AT_IMPORT

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's code in a folder of its own, with what `select` reads."""
    for folder in ("flows", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_in(project: Path, code: str, *arguments: str) -> str:
    """Return what a Python program prints that has the project's code."""
    env = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STAGE = """
import json, sys
from pathlib import Path
from tasks.errors import UserError
from tasks.lineage.begun import begin
from tasks.lineage.loaded import AT_IMPORT
import tasks.stages.select

def edited(path, old="", new="# an edit"):
    before = Path(path).read_text()
    Path(path).write_text(before.replace(old, new) if old else before + new)

read, said = Path("read"), []
for change in json.loads(sys.argv[1]):
    kept = {path: path.read_bytes() for path in (*Path("tasks").rglob("*.py"), Path("params.yaml"))}
    read.write_text("1")
    begun = begin("select", Path("params.yaml"), [read], AT_IMPORT)
    exec(change)
    try:
        begun.refuse_changes()
        said.append(begun.loaded_code())
    except UserError as error:
        said.append(str(error))
    for path, content in kept.items():
        path.write_bytes(content)
edited("tasks/errors.py")
try:
    begin("select", Path("params.yaml"), [], AT_IMPORT)
except UserError as error:
    said.append(str(error))
print(json.dumps(said))
"""
CHANGES = {
    "edited('tasks/stages/select.py')": "tasks/stages/select.py",
    "edited('tasks/stages/report.py')": None,  # another stage's
    "edited('tasks/errors.py')": None,  # was loaded before, and DVC does not list it
    "edited('tasks/training/metrics.py')": None,  # never loaded
    "Path('tasks/files.py').unlink()": None,  # as while Git checks out another branch
    "Path('tasks/stages/select.py').unlink()": "tasks/stages/select.py",
    "read.write_text('22')": "read",
    "read.unlink()": "read",
    "edited('params.yaml')": None,  # a comment
    "edited('params.yaml', 'bootstrap_resamples: 1000', 'bootstrap_resamples: 999')": None,  # of other stages
    "edited('params.yaml', 'parent: r1', 'parent: teacher')": "params.yaml",
    "Path('params.yaml').unlink()": "params.yaml",
    "edited('tasks/training/metrics.py'); import tasks.training.metrics": "tasks/training/metrics.py",
}


def test_a_stage_says_what_changed_while_it_ran(project: Path) -> None:
    before = {name: sha256(project / name) for name in ("tasks/errors.py", "tasks/files.py", "tasks/stages/select.py")}
    *said, start = json.loads(run_in(project, STAGE, json.dumps(list(CHANGES))))
    for words, (change, named) in zip(said, CHANGES.items(), strict=True):
        if named is None:
            assert {name: words[name] for name in before} == before, change
        else:
            assert str(words).startswith(f"select: changed while it ran: {named}. "), change
    assert start == "select: changed while it started: tasks/errors.py; run again"


def test_the_code_of_a_stage_is_what_it_loaded(project: Path) -> None:
    import tasks.stages.select

    code = begin("select", Path("params.yaml"), [], AT_IMPORT).loaded_code()
    assert {"tasks/stages/select.py", "tasks/running/stage.py", "tasks/__main__.py", "tasks/files.py"} <= set(code)
    assert code["tasks/stages/select.py"] == sha256(Path(tasks.stages.select.__file__))
    assert not [path for path in code if not path.startswith(("tasks/", "flows/"))]
