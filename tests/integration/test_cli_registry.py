"""The story of a registry by the command line: first champion, a worse candidate, an equal one, rollback, drift, history."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.cli import app as cli
from tasks.files import read_json, write_json
from tasks.params.file import apply_overrides, read_yaml
from tasks.registry.tracking import Tracker
from tasks.running.stage import main as stage
from tests.example_run import build_run, described, gate_arguments, predictions
from tests.integration.conftest import shell

ROOT = Path(__file__).resolve().parents[2]
NAME = "compactlm-sentiment"
PLACES = [("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")]


def _gate(artifacts: Path, name: str) -> None:
    assert stage([*gate_arguments(artifacts, name), "--params", str(ROOT / "params.yaml")]) == 0


def _worsen(artifacts: Path, name: str) -> None:
    """Let a round's predictions on test be much worse, its report in keeping with them."""
    frame = predictions(name, "test", 0.70)
    place = artifacts / "rounds" / name / "evaluated"
    frame.to_parquet(place / "predictions/test.parquet", index=False)
    quality = read_json(place / "quality.json")
    quality["sets"]["test"] = described(frame, "test")
    write_json(place / "quality.json", quality)


def _register(tracker: Tracker, artifacts: Path, name: str, teacher: str | None, folder: Path) -> str:
    """Register a round as `compactlm run` does, with a few bytes for weights; return its run id."""
    place, weights = artifacts / "rounds" / name, f"weights of {name}".encode()
    run = tracker.create_run(name, {"kind": "round"})
    evidence = [place / "evaluated/quality.json", place / "evaluated/cost.json"]
    evidence += [place / "verdict.json"] if teacher else []
    tracker.log_files(run, evidence, "evidence")
    tracker.log_files(run, sorted((place / "evaluated/predictions").glob("*.parquet")), "predictions")
    if teacher is None:
        return run
    model = folder / name / "artifacts/model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(weights)
    made = tracker.client.create_logged_model(tracker.experiment_id, name=name, source_run_id=run)
    tracker.client.log_model_artifacts(made.model_id, str(folder / name))
    tracker.client.finalize_logged_model(made.model_id, "READY")
    tracker.ensure_version(
        NAME,
        made.model_id,
        run,
        {
            "model_sha256": hashlib.sha256(weights).hexdigest(),
            "round": name,
            "run_id": run,
            "model_id": made.model_id,
            "teacher_run_id": teacher,
            "parent": "teacher",
        },
    )
    return run


@pytest.fixture(scope="module")
def registry_template(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """Return a project whose registry has r1 (fine), r2 (much worse on test) and r3 (fine), and no champion."""
    base = tmp_path_factory.mktemp("story")
    project = base / "project"
    (project / ".compactlm/mlflow").mkdir(parents=True)
    shutil.copyfile(store_template, project / ".compactlm/mlflow/mlflow.db")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    numbers = [one for one in read_yaml(ROOT / "params.yaml")["promotion"]["gates"] if "check" not in one]
    text = apply_overrides(text, [f"promotion.gates={json.dumps(numbers)}"], "params.yaml")
    (project / "params.yaml").write_text(text, encoding="utf-8")
    (project / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    shell(project, "git", "init", "-q", "-b", "main")
    artifacts = build_run(base / "artifacts")
    _worsen(artifacts, "r2")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = Tracker(project, NAME)
        teacher = _register(tracker, artifacts, "teacher", None, base)
        for name in ("r1", "r2", "r3"):
            _gate(artifacts, name)
            _register(tracker, artifacts, name, teacher, base)
    return project


@pytest.fixture
def project(tmp_path: Path, registry_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COMPACTLM_ACTOR", "Ada")
    copy = Path(shutil.copytree(registry_template, tmp_path / "project"))
    with contextlib.closing(sqlite3.connect(copy / ".compactlm/mlflow/mlflow.db")) as store:
        for table, column in PLACES:  # MLflow's records name the place of each file
            store.execute(f"UPDATE {table} SET {column} = replace({column}, '{registry_template}', '{copy}')")
        store.commit()
    monkeypatch.chdir(copy)
    return copy


class Told:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def compactlm(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["compactlm", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return Told(int(end.value.code or 0), said.out, said.err)

    return run


def test_the_story_of_a_registry(project: Path, compactlm: Any) -> None:
    asked = compactlm("gate", "1")
    assert (asked.code, asked.out.splitlines()[0]) == (0, "version 1 (r1): pass")
    assert "no decision" in compactlm("history").out

    assert compactlm("promote", "1").code == 0
    refused = compactlm("promote", "2")
    assert refused.code == 2
    assert "is refused: gates of r2: accuracy on test" in refused.err
    assert "points below the champion's" in refused.err
    done = compactlm("promote", "3", "--reason", "smaller")
    assert (done.code, done.out.splitlines()[-1][:34]) == (0, "decision 3: version 3 (r3) is cham")
    assert "the champion's" in done.out

    compared = json.loads(compactlm("compare", "previous", "champion", "--json").out)
    overall = compared["rows"][0]
    assert (overall["set"], overall["rows"]) == ("test", 964)
    assert overall["difference"] == pytest.approx(overall["b"] - overall["a"])
    assert overall["low"] < overall["difference"] < overall["high"]
    assert "accuracy of A and B; rows that B lost" in compactlm("compare", "1", "3").out

    assert compactlm("rollback").code == 2  # no reason
    back = compactlm("rollback", "--reason", "too many wrong refunds")
    assert "version 1 (r1) is champion" in back.out
    never = compactlm("rollback", "--reason", "x", "--to", "2")
    assert (never.code, "has never been champion" in never.err) == (2, True)

    log = json.loads(compactlm("history", "--json").out)["decisions"]
    assert [(one["kind"], one["candidate"]["version"], one["outcome"], one["actor"]) for one in log] == [
        ("promote", "1", "done", "Ada"),
        ("promote", "2", "refused", "Ada"),
        ("promote", "3", "done", "Ada"),
        ("rollback", "1", "done", "Ada"),
    ]
    assert set(log[2]["verdict"]["evidence"]) >= {"student/test.parquet", "champion/test.parquet"}
    checked = compactlm("history", "--check")
    assert (checked.code, "too many wrong refunds" in checked.out) == (0, True)

    Tracker(project, NAME).set_alias(NAME, "champion", "2")
    drifted = compactlm("history", "--check")
    assert (drifted.code, "alias champion points at version 2; the log says version 1" in drifted.err) == (2, True)
    assert compactlm("history", "--check", "--repair").code == 0
    assert Tracker(project, NAME).aliases(NAME) == {"champion": "1", "previous": "3"}


def _other_gates(project: Path, tracker: Tracker) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("min_ratio: 0.97", "min_ratio: 0.5"), encoding="utf-8")


def _other_bytes(project: Path, tracker: Tracker) -> None:
    (_weights(tracker, "3")).write_bytes(b"evil")


def _no_bytes(project: Path, tracker: Tracker) -> None:
    _weights(tracker, "3").unlink()


def _weights(tracker: Tracker, version: str) -> Path:
    entry = next(one for one in tracker.versions(NAME) if str(one.version) == version)
    return tracker.local_model(entry.tags["compactlm.model_id"]) / "artifacts/model/model.safetensors"


def _evidence(tracker: Tracker, version: str, name: str) -> Path:
    entry = next(one for one in tracker.versions(NAME) if str(one.version) == version)
    path = tracker.local_file(entry.tags["compactlm.run_id"], name)
    assert path is not None
    return path


def _no_verdict(project: Path, tracker: Tracker) -> None:
    _evidence(tracker, "3", "evidence/verdict.json").unlink()


def _no_champion_predictions(project: Path, tracker: Tracker) -> None:
    _evidence(tracker, "1", "predictions/test.parquet").unlink()


def _champion_of_other_rows(project: Path, tracker: Tracker) -> None:
    path = _evidence(tracker, "1", "predictions/test.parquet")
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)


def _champion_version_deleted(project: Path, tracker: Tracker) -> None:
    tracker.client.delete_model_version(NAME, "1")
    tracker.set_model_tag(NAME, "decision", "0")  # as a registry that was made anew
    for path in list((project / ".compactlm").rglob("predictions")):
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_gates, "was judged by other rules than params.yaml has now"),
        (_other_bytes, "is not the file that was evaluated"),
        (_no_bytes, "has no model.safetensors in the registry"),
        (_no_verdict, "has no verdict"),
        (_no_champion_predictions, "there are no predictions of champion"),
        (_champion_of_other_rows, "champion and the teacher were measured on different rows"),
        (_champion_version_deleted, "there are no predictions of"),
    ],
)
def test_what_cannot_be_proven_is_refused_and_recorded(project: Path, compactlm: Any, change: Any, words: str) -> None:
    assert compactlm("promote", "1").code == 0
    tracker = Tracker(project, NAME)
    change(project, tracker)
    refused = compactlm("promote", "3")
    assert refused.code == 2
    assert words in refused.err
    assert "champion" not in tracker.aliases(NAME) or tracker.aliases(NAME)["champion"] == "1"
    assert json.loads(compactlm("history", "--json").out)["decisions"][-1]["outcome"] == "refused"


def test_a_version_is_named_in_every_command_as_in_audit(compactlm: Any) -> None:
    asked = [json.loads(compactlm("gate", words, "--json").out)["candidate"]["version"] for words in ("1", "/1", f"{NAME}/1")]
    assert asked == ["1", "1", "1"]
    assert compactlm("promote", f"{NAME}/1").code == 0
    assert compactlm("promote", f"{NAME}/3").code == 0
    sides = [
        json.loads(compactlm("compare", a, b, "--json").out)
        for a, b in (("previous", "champion"), (f"{NAME}@previous", f"{NAME}@champion"), (f"{NAME}/1", NAME))
    ]
    assert [(one["a"]["version"], one["b"]["version"]) for one in sides] == [("1", "3")] * 3
    assert compactlm("rollback", "--reason", "x", "--to", f"{NAME}@previous").code == 0


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(compactlm: Any) -> None:
    assert compactlm("promote", "1").code == 0
    for words in ("best", "7", f"{NAME}/7", f"{NAME}@best", "other/1"):
        for command in (
            ["promote", words],
            ["gate", words],
            ["compare", "1", words],
            ["audit", words],
            ["rollback", "--reason", "x", "--to", words],
        ):
            told = compactlm(*command)
            assert told.code == 2
            assert f"{words}: there is no such version; registered: {NAME}@champion, {NAME}/1, {NAME}/2" in told.err
    assert f"write MODEL, MODEL@ALIAS or MODEL/VERSION, such as {NAME}@champion" in compactlm("gate", f"{NAME}@").err


def test_decisions_are_made_about_the_model_of_params_alone(project: Path, compactlm: Any) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(NAME, "another"), encoding="utf-8")
    told = compactlm("promote", f"{NAME}/1")
    assert told.code == 2
    assert f"'{NAME}/1': decisions are made about another (registry.model_name in params.yaml), not {NAME}" in told.err
