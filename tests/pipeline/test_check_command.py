"""`compactlm check`: all that would stop a run, at once, whatever is wrong with params.yaml itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.files import read_json
from tests.pipeline.conftest import Command
from tests.tiny_project import Project, environment, labelled_rows

HEAVY = ("torch", "transformers", "dvc", "mlflow", "prefect", "great_expectations", "sklearn")


@pytest.fixture
def fresh(tiny_project: Project, tmp_path: Path) -> Project:
    """A project of its own, with a teacher and rows of its own."""
    project = tiny_project.copy(tmp_path / "project")
    teacher = tmp_path / "teacher"
    source = tiny_project.folder.parent
    for file in (source / "teacher").iterdir():
        teacher.mkdir(exist_ok=True)
        (teacher / file.name).write_bytes(file.read_bytes())
    (tmp_path / "rows.csv").write_bytes((source / "rows.csv").read_bytes())
    project.set(f"teacher.model=path:{teacher}", f"data.source=path:{tmp_path / 'rows.csv'}")
    return project


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = read_json(path)
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def faults_of(project: Project, command: Command, *arguments: str) -> list[str]:
    code, out, err = command(project, "check", "--json", *arguments)
    answer = json.loads(out)
    assert code == (2 if answer["faults"] else 0), err
    return list(answer["faults"])


def test_a_sound_project_has_no_fault_and_nothing_heavy_is_imported(fresh: Project) -> None:
    code = f"import sys\nfrom tasks.cli.app import main\ntry: main()\nfinally: print(sorted(set(sys.modules) & set({HEAVY})))"
    command = [sys.executable, "-c", code, "check", "--json"]
    done = subprocess.run(command, cwd=fresh.folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, _, imported = done.stdout.rstrip().rpartition("\n")
    assert json.loads(answer)["faults"] == []
    assert imported == "[]"


def test_ten_faults_of_ten_kinds_are_said_at_once(fresh: Project, tmp_path: Path, command: Command) -> None:
    params, teacher = fresh.folder / "params.yaml", tmp_path / "teacher"
    edit_text(params, "kd_weight:", "kd_wieght:")
    edit_text(params, "temperature: 2.0", "temperature: -1.0")
    edit_text(params, "parent: r1", "parent: r9")
    edit_text(params, "set: abroad_typos", "set: abroad_tpyos")
    edit_json(teacher / "config.json", lambda config: config.update(pruned_heads={"0": [1]}))
    edit_json(teacher / "tokenizer.json", lambda one: one["model"]["vocab"].update(more=len(one["model"]["vocab"])))
    weights = (teacher / "model.safetensors").read_bytes()
    (teacher / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    rows = labelled_rows()
    rows[5] |= {"text": {"words": "fine"}}
    rows[6] |= {"label": "what"}
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    edit_text(params, "rows.csv", "rows.jsonl")
    (fresh.folder / "sources.lock").write_text("<<<<<<< HEAD\n{}\n", encoding="utf-8")
    expected = (
        "distill.kd_wieght: unknown key; did you mean 'kd_weight'?",
        "distill.temperature: got -1.0",
        "rounds.r2.parent: 'r9' is not an earlier round",
        ".set: 'abroad_tpyos' is not one of",
        "pruned_heads",
        "token 'more' has id",
        "cut short",
        "rows.jsonl: line 6: 'text', which data.columns.text names, is an object",
        "unknown label ('what' x 1)",
        "sources.lock: line 1 has a conflict mark of Git",
    )
    faults = faults_of(fresh, command)
    assert [words for words in expected if sum(words in fault for fault in faults) != 1] == []
    assert len(faults) == len(expected) + 1  # kd_weight is missing, too

    code, _, err = command(fresh, "run")
    assert code == 2
    assert [line for line in err.splitlines() if line.removeprefix("error: ") in faults] == err.splitlines()


def test_rounds_that_do_not_fit_are_all_named(fresh: Project, command: Command) -> None:
    edit_text(fresh.folder / "params.yaml", "hidden: 24", "hidden: 27")  # three heads of nine channels: the teacher's have eight
    edit_text(fresh.folder / "params.yaml", "layers: 3", "layers: 5")
    (fault,) = faults_of(fresh, command)
    assert "rounds.r1" in fault
    assert faults_of(fresh, command, "--set", "rounds.r1.hidden=24", "--set", "rounds.r1.layers=3") == []


def test_a_source_of_the_hub_waits_for_its_download(fresh: Project, command: Command) -> None:
    code, out, _ = command(fresh, "check", "--set", "teacher.model=hub:org/name@main")
    assert (code, "hub:org/name@main is looked at once it is downloaded" in out) == (0, True)
