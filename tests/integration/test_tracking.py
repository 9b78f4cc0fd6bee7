"""The record in MLflow, against a real SQLite store: what is there, and that doing it twice adds nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tasks.params.file import load_params
from tasks.promotion.first_champion import settle_champion
from tasks.registry import publish
from tasks.registry.listing import list_models
from tasks.registry.live import Recorder
from tasks.registry.publish import Publication
from tasks.registry.tracking import Tracker
from tasks.running.dvc import read_graph, stage_digests

NAME = "compactlm-sentiment"


def recorder(workspace: Path) -> Recorder:
    params = load_params(workspace / "params.yaml")
    return Recorder(workspace, params, read_graph(workspace), {"git_commit": "c"}, settle_champion)


def record(workspace: Path, outcome: str = "executed") -> dict[str, str]:
    return recorder(workspace).finish(dict.fromkeys(stage_digests(workspace), outcome))


def counts(store: Path) -> dict[str, int]:
    """Return the rows of every table that holds records."""
    tables = (
        "runs",
        "metrics",
        "latest_metrics",
        "params",
        "tags",
        "inputs",
        "datasets",
        "logged_models",
        "logged_model_tags",
        "logged_model_metrics",
        "registered_models",
        "model_versions",
        "model_version_tags",
        "registered_model_aliases",
    )
    connection = sqlite3.connect(store)
    found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    connection.close()
    return found


def client(store: Path) -> Any:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{store}")


def change_verdict(workspace: Path) -> None:
    """Judge r3 otherwise, as a change of the gates does: a new verdict and a new entry in dvc.lock."""
    path = workspace / "artifacts/rounds/r3/verdict.json"
    path.write_text(path.read_text().replace("fail", "pass"))
    (workspace / "artifacts/selection.json").write_text('{"selected": "r3"}')
    lock = (workspace / "dvc.lock").read_text()
    head, mark, tail = lock.partition("  gate@r3:\n")
    (workspace / "dvc.lock").write_text(head + mark + tail.replace("md5: ", "md5: f", 1))
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("max: 0.15", "max: 0.16"))


def test_a_run_is_recorded_with_rounds_models_versions_and_aliases(built: Path, store: Path) -> None:
    runs = record(built)
    assert list(runs) == ["teacher", "r1", "r2", "r3"]
    made = client(store)
    experiment = made.get_experiment_by_name(NAME).experiment_id
    everything = made.search_runs([experiment])
    parent = next(run for run in everything if "mlflow.parentRunId" not in run.data.tags)
    assert len(everything) == 5
    assert {run.info.status for run in everything} == {"FINISHED"}
    assert parent.data.tags["compactlm.stage/prune/r1"] == "executed"
    assert parent.data.tags["compactlm.round/r1"] == runs["r1"]
    assert parent.data.metrics["tfidf_logistic/test/accuracy"] == 0.7
    assert {item.dataset.name for item in parent.inputs.dataset_inputs} >= {"train", "imdb"}
    child = made.get_run(runs["r3"])
    assert child.data.metrics["test/class_negative/accuracy"] == 0.75
    assert child.data.metrics["cost/params_total"] == 120
    assert [point.step for point in made.get_metric_history(runs["r3"], "loss")] == [10, 20, 30, 40]
    models = made.search_logged_models([experiment])
    assert sorted(m.name for m in models if m.name.startswith("r3")) == ["r3", "r3-step-000020", "r3-step-000040"]
    pointer = next(m for m in models if m.name == "r3-step-000020")
    assert pointer.tags["compactlm.path"] == "artifacts/rounds/r3/trained/checkpoints/step-000020"
    assert {(m.key, m.step) for m in pointer.metrics} >= {
        ("checkpoint/validation_accuracy", 20),
        ("checkpoint/learnt_kl_nats_per_example", 20),
    }
    assert len(made.search_model_versions(f"name = '{NAME}'")) == 3
    challenger = made.get_model_version_by_alias(NAME, "challenger")
    assert challenger.tags["compactlm.round"] == "r2"
    assert made.get_model_version_by_alias(NAME, "champion").version == challenger.version


def test_the_champion_answers_and_is_listed_with_its_files(built: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(built)
    rows = list_models(Tracker(built, NAME))
    assert [row["round"] for row in rows] == ["r1", "r2", "r3"]
    champion = rows[1]
    assert champion["aliases"] == ["challenger", "champion"]
    assert (champion["parent"], champion["params_total"], champion["flops_per_example"]) == ("r1", 250, 2250)
    assert champion["latency_ms_p50"] == {"1": 2.0, "32": 2.0}
    assert champion["metrics"]["test"]["accuracy"] == champion["teacher_metrics"]["imdb"]["accuracy"] == 0.8
    assert champion["verdict"]["verdict"] == "pass"
    assert [(one["metric"], one["result"]) for one in champion["verdict"]["rules"]] == [("accuracy", "pass")]
    assert (Path(champion["path"]) / "model.safetensors").exists()
    assert Path(champion["onnx_path"]).read_bytes() == b"onnx r2"
    json.dumps(rows)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    answer = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(["a fine film", "a dull film"])
    assert list(answer["label"].isin(["negative", "positive"])) == [True, True]


def test_recording_twice_adds_nothing(built: Path, store: Path) -> None:
    record(built)
    before = counts(store)
    assert before["model_versions"] == 3
    record(built, "skipped")
    assert counts(store) == before
    run = client(store).search_runs(["1"], "tags.`compactlm.kind` = 'pipeline'")[0]
    assert run.data.tags["compactlm.stage/teacher"] == "executed"


@pytest.mark.parametrize("broken", ["log_points", "ensure_pointer", "log_files", "ensure_version", "set_alias"])
def test_a_record_cut_short_is_completed_without_doubles(
    built: Path, store: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(Tracker, broken)
    calls = []

    def dies(self: Tracker, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        result = real(self, *arguments, **named)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, broken, dies)
        with pytest.raises(KeyboardInterrupt):
            record(built)
    record(built)
    after = counts(store)
    assert (after["runs"], after["model_versions"], after["logged_models"]) == (5, 3, 12)
    doubles = sqlite3.connect(store).execute("SELECT 1 FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1")
    assert doubles.fetchall() == []
    record(built)
    assert counts(store) == after


def test_an_upload_cut_short_is_done_again_into_the_same_model(built: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.registry.tracking._save_servable", dies)
        with pytest.raises(KeyboardInterrupt):
            record(built)
    record(built)
    assert counts(store)["logged_models"] == 12


def test_a_changed_verdict_makes_a_new_round_run_but_no_new_version(built: Path, store: Path) -> None:
    record(built)
    before = counts(store)
    change_verdict(built)
    record(built)
    after = counts(store)
    assert after["runs"] == before["runs"] + 2  # the new parent, and r3 judged anew
    assert after["model_versions"] == before["model_versions"]
    assert after["logged_models"] == before["logged_models"]
    made = client(store)
    assert made.get_model_version_by_alias(NAME, "challenger").tags["compactlm.round"] == "r3"
    assert made.get_model_version_by_alias(NAME, "champion").tags["compactlm.round"] == "r2"
    assert list_models(Tracker(built, NAME))[2]["verdict"]["verdict"] == "pass"


def test_live_points_are_not_doubled_by_a_resumed_run_or_the_final_record(built: Path, store: Path) -> None:
    steps = built / "artifacts/rounds/r1/trained/steps.jsonl"
    lines = steps.read_text().splitlines(keepends=True)
    live = built / ".compactlm/scratch/distill@r1/steps.jsonl"
    live.parent.mkdir(parents=True)
    for amount in (2, 3):  # killed after two lines; the next run writes them again and one more
        run = recorder(built)
        with run.follow("distill@r1"):
            live.write_text("".join(lines[:amount]))
        run.fail()
    made = client(store)
    found = made.search_runs(["1"])
    assert {r.info.status for r in found} == {"FAILED"}
    assert len(found) == 2
    runs = record(built)
    assert len(made.get_metric_history(runs["r1"], "loss")) == 4
    assert made.get_run(runs["r1"]).info.status == "FINISHED"
    assert counts(store)["runs"] == 5


def test_lines_of_an_earlier_attempt_are_not_read(built: Path, store: Path) -> None:
    live = built / ".compactlm/scratch/distill@r1/steps.jsonl"
    live.parent.mkdir(parents=True)
    live.write_text('{"step": 1, "loss": 9.0}\n')
    with recorder(built).follow("distill@r1"):
        pass
    assert counts(store)["runs"] == 0


def test_the_inputs_digest_sees_params_and_code_but_not_comments(built: Path) -> None:
    def now() -> str:
        return publish.inputs_digest(built, load_params(built / "params.yaml"), ["tasks/small_stages.py"])

    first = now()
    text = (built / "params.yaml").read_text()
    (built / "params.yaml").write_text("# a remark\n" + text)
    assert now() == first
    (built / "params.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    second = now()
    (built / "tasks/small_stages.py").write_text("# other code\n")
    assert len({first, second, now()}) == 3


def test_nothing_is_recorded_for_rounds_that_are_not_done(built: Path, store: Path) -> None:
    digests = stage_digests(built)
    del digests["gate@r2"]
    params = load_params(built / "params.yaml")
    runs = Publication(Tracker(built, NAME), params, "x" * 8, {}).publish_rounds(digests)
    assert list(runs) == ["teacher", "r1", "r3"]
