"""The whole pipeline on a tiny teacher, by the real command line: what it makes, what it does again, and after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.files import digest, read_json
from tasks.params.file import read_yaml
from tasks.running.dvc import read_graph
from tests.pipeline.scene import take_cache
from tests.tampering import STORE
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

PATIENCE_SECONDS = 300.0
FIELDS = {
    "name",
    "version",
    "round",
    "aliases",
    "parent",
    "model_sha256",
    "params_total",
    "params_non_embedding",
    "size_bytes",
    "flops_per_example",
    "latency_ms_p50",
    "latency_ms_p95",
    "metrics",
    "teacher_metrics",
    "verdict",
    "path",
    "onnx_path",
}


def executed(states: dict[str, str]) -> set[str]:
    return {name for name, state in states.items() if state == "executed"}


def test_the_first_run_registers_three_models_that_load_with_stock_classes(finished: Project) -> None:
    from transformers import AutoModelForSequenceClassification

    done = finished.compactlm("models", "--json")
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)
    assert [(one["name"], one["version"], one["round"]) for one in models] == [
        ("tiny", 1, "r1"),
        ("tiny", 2, "r2"),
        ("tiny", 3, "r3"),
    ]
    assert models[2]["aliases"] == ["challenger", "champion"]
    rounds = read_yaml(finished.folder / "params.yaml")["rounds"]
    for one in models:
        assert set(one) >= FIELDS
        assert one["verdict"]["verdict"] == "pass"
        assert set(one["metrics"]) == {"validation", "test", "abroad", "abroad_typos"}
        assert Path(one["onnx_path"]).exists()
        model: Any = AutoModelForSequenceClassification.from_pretrained(one["path"])
        assert model.num_parameters() == one["params_total"]
        assert model.config.hidden_size == rounds[one["round"]]["hidden"]
    sizes = [one["params_total"] for one in models]
    assert sizes == sorted(sizes, reverse=True)


def test_the_files_of_a_run_agree_with_each_other(finished: Project) -> None:
    artifacts = finished.folder / "artifacts"
    for name in ("teacher", "r1", "r2", "r3"):
        place = artifacts / "rounds" / name
        quality = read_json(place / "evaluated/quality.json")
        summary = read_json(place / "trained/summary.json")
        assert quality["model_sha256"] == summary["model_sha256"]
        assert read_json(place / "exported/parity.json")["load_back_max_difference"] <= 1e-5
        steps = [json.loads(line) for line in (place / "trained/steps.jsonl").read_text().splitlines()]
        assert len([line for line in steps if "checkpoint" in line]) == len(summary["checkpoints"])
    logits = np.load(artifacts / "teacher_logits/train.npy")
    assert len(logits) == read_json(artifacts / "data/summary.json")["sets"]["train"]["rows"]
    assert read_json(artifacts / "selection.json")["selected"] == "r3"
    assert (artifacts / "report.html").exists()
    receipts = {path.stem for path in (artifacts / "receipts").iterdir()}
    assert receipts == {stage.name for stage in read_graph(finished.folder)}


@pytest.mark.slow
def test_a_second_run_and_dvc_itself_find_nothing_to_do(project: Project) -> None:
    before = project.facts()
    done = project.compactlm("run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "no change"
    said = project.dvc("repro")
    assert "Running stage" not in said
    assert "Data and pipelines are up to date" in said
    assert project.facts() == before


@pytest.mark.slow
def test_a_change_runs_only_what_follows_from_it(project: Project) -> None:
    states = project.run("--set", "rounds.r3.learning_rate=4.0e-3", "--set", "gates=[{metric: params_total, max: 9999}]")
    third = {f"{stage}@r3" for stage in ("prune", "distill", "export", "evaluate", "gate")}
    assert executed(states) == {*third, "gate@r1", "gate@r2", "select", "report"}
    assert {state for name, state in states.items() if name not in executed(states)} == {"skipped"}
    assert read_yaml(project.folder / "params.yaml")["rounds"]["r3"]["learning_rate"] == 0.004


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_training_ends_with_the_same_bytes(project: Project) -> None:
    folder = project.folder
    expected = digest(folder / "artifacts/rounds/r2/trained")
    _forget(folder, "distill@r2")
    state = folder / ".compactlm/scratch/distill@r2/state.pt"
    child = project.start("run")
    _wait(state.exists, child)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert state.exists(), "killed too late to be in the middle"

    states = project.run()
    assert executed(states) - {"gate@r2"} <= {"distill@r2"}
    assert states["distill@r2"] == "executed"
    assert digest(folder / "artifacts/rounds/r2/trained") == expected
    assert not state.exists()


def _forget(folder: Path, stage: str) -> None:
    """Take from DVC all it knows of a stage's result, and let training save its state soon."""
    lock = read_yaml(folder / "dvc.lock")
    del lock["stages"][stage]
    YAML().dump(lock, folder / "dvc.lock")
    shutil.rmtree(folder / ".dvc/cache/runs")
    shutil.rmtree(folder / "artifacts/rounds/r2/trained")
    code = folder / "tasks/training/scratch.py"  # no stage depends on it: when it saves does not change the result
    text = code.read_text(encoding="utf-8")
    assert "SAVE_EVERY_SECONDS: Final = 20.0" in text
    code.write_text(text.replace("SAVE_EVERY_SECONDS: Final = 20.0", "SAVE_EVERY_SECONDS: Final = 0.5"))


def _wait(met: Any, child: Any) -> None:
    """Wait until a condition is met while a process runs."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not met():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_ends_with_the_cache_elsewhere_and_the_files_of_mlflow_gone(project: Project, tmp_path: Path) -> None:
    elsewhere = Path(shutil.move(project.folder / ".dvc/cache", tmp_path / "cache"))
    shutil.rmtree(project.folder / "artifacts")
    take_cache(project, elsewhere, "symlink")
    kept = project.folder / STORE
    for place in kept.parent.iterdir():
        if place.is_dir():
            shutil.rmtree(place)
    done = project.compactlm("run", "--json", "--set", "rounds.r3.learning_rate=4.0e-3")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    ran = {row["name"] for row in json.loads(done.stdout)["stages"] if row["state"] == "executed"}
    assert {"distill@r3", "report"} <= ran
    assert not {"teacher", "distill@r2"} & ran
    listed = project.compactlm("models")
    assert listed.returncode == 2, listed.stdout
    assert "evidence/cost.json: the files of its store are gone, or in part" in listed.stderr, "what is missing is named"
    shutil.rmtree(kept.parent)  # as the message says
    assert project.compactlm("publish", "--rebuild").returncode == 0
    rows = json.loads(project.compactlm("models", "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in rows][2:] == [(3, ["champion"]), (4, ["challenger"])]
