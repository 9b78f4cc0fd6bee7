"""The record in MLflow, against a real SQLite store: what is there, and that doing it twice adds nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tasks.cli.show import models
from tasks.files import read_json, write_json
from tasks.params.file import apply_overrides, load_params
from tasks.promotion.first_champion import settle_champion
from tasks.registry import publish
from tasks.registry.listing import list_models
from tasks.registry.live import Recorder
from tasks.registry.publish import Publication
from tasks.registry.store import ClientStore, RegisteredModel, open_sqlite
from tasks.registry.tracking import Tracker
from tasks.running.dvc import read_graph, stage_digests
from tests.marks import quick

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


@pytest.mark.parametrize(
    "broken",
    quick(["log_points", "ensure_pointer", "log_files", "ensure_version", "set_alias"], ["log_points", "ensure_version"]),
)
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


def test_what_is_recorded_whole_is_found_so_without_mlflow(built: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = record(built)

    def client(_: Tracker) -> Any:
        raise AssertionError("asked for")

    monkeypatch.setattr(Tracker, "client", property(client))
    assert record(built, "skipped") == first
    assert [row["round"] for row in list_models(Tracker(built, NAME))] == ["r1", "r2", "r3"]
    change_verdict(built)
    with pytest.raises(AssertionError, match="asked for"):  # something is to be recorded
        record(built)


def test_a_store_read_by_sql_says_what_mlflow_says(built: Path, store: Path) -> None:
    runs = record(built)
    made = client(store)
    made.log_metric(runs["r1"], "odd", float("nan"), step=3)
    made.log_metric(runs["r1"], "odd", 2.0, step=1)
    made.delete_run(runs["r2"])
    made.delete_model_version(NAME, "1")
    made.set_registered_model_tag(NAME, "owner", "Ada")
    by_sql, by_mlflow = open_sqlite(store), ClientStore(made)
    assert by_sql is not None  # else a newer MLflow has another schema: look at it, and bring SCHEMA up to date
    experiments = by_sql.experiments()
    assert sorted(experiments) == sorted(by_mlflow.experiments())
    assert by_sql.experiment(NAME) == by_mlflow.experiment(NAME) == experiments[-1]
    assert by_sql.experiment("another") is by_mlflow.experiment("another") is None
    for tags in ({}, {"compactlm.kind": "round"}, {"compactlm.kind": "round", "compactlm.round": "r3"}, {"none": "x"}):
        assert _plain(by_sql.runs(experiments, tags)) == _plain(by_mlflow.runs(experiments, tags))
    for run_id in runs.values():
        run = by_sql.run(run_id)
        assert run is not None
        assert _plain([run]) == _plain([by_mlflow.run(run_id)])
        assert repr(by_sql.points(run_id, run.metrics)) == repr(by_mlflow.points(run_id, run.metrics))
    assert by_sql.run("0" * 32) is by_mlflow.run("0" * 32) is None
    for model_tags in ({"compactlm.best_of": "r3"}, {"compactlm.round": "r1"}):
        assert by_sql.models(experiments[-1], model_tags) == by_mlflow.models(experiments[-1], model_tags)
    for name in (NAME, None, "another"):
        assert sorted(map(repr, by_sql.versions(name))) == sorted(map(repr, by_mlflow.versions(name)))
    assert by_sql.registered(NAME) == by_mlflow.registered(NAME)
    assert by_sql.registered("another") == by_mlflow.registered("another") == RegisteredModel({}, {})


def test_what_is_no_store_of_a_known_schema_is_left_to_mlflow(store: Path, tmp_path: Path) -> None:
    assert open_sqlite(tmp_path / "none.db") is None
    (tmp_path / "words.db").write_text("no database")
    assert open_sqlite(tmp_path / "words.db") is None
    assert open_sqlite(store) is not None
    connection = sqlite3.connect(store)
    connection.execute("UPDATE alembic_version SET version_num = 'later'")
    connection.commit()
    connection.close()
    assert open_sqlite(store) is None


def _plain(runs: Any) -> list[dict[str, Any]]:
    """Return records of runs with their metrics in one order."""
    return [{**vars(run), "metrics": sorted(run.metrics)} for run in runs]


def test_the_random_start_of_a_round_is_recorded_with_it_and_listed(
    built: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(built)
    before = counts(store)
    assert [row["random_init"] for row in list_models(Tracker(built, NAME))] == [None, None, None]
    path = built / "params.yaml"
    path.write_text(apply_overrides(path.read_text(), ["baselines.random_init=[r3]"], path.name))
    quality = read_json(built / "artifacts/rounds/r3/evaluated/quality.json")
    quality["sets"]["test"]["slices"]["overall"]["accuracy"] = {"value": 0.25, "low": 0.2, "high": 0.3}
    write_json(built / "artifacts/rounds/r3/random_init/quality.json", quality)
    digests = {**stage_digests(built), "random_init@r3": "of its entry in dvc.lock"}
    tracker, params = Tracker(built, NAME), load_params(path)
    runs = Publication(tracker, params, "x" * 8, {}).finish(digests, dict.fromkeys(digests, "executed"))
    made = client(store)
    assert made.get_run(runs["r3"]).data.metrics["random_init/test/accuracy"] == 0.25
    assert made.get_run(runs["r3"]).data.metrics["random_init/test/accuracy_high"] == 0.3
    after = counts(store)
    assert (after["runs"], after["model_versions"]) == (before["runs"] + 2, before["model_versions"])
    rows = list_models(tracker)
    assert [row["random_init"] and row["random_init"]["test"]["accuracy"] for row in rows] == [None, None, 0.25]
    Publication(Tracker(built, NAME), params, "x" * 8, {}).finish(digests, dict.fromkeys(digests, "skipped"))
    assert counts(store) == after

    monkeypatch.chdir(built)
    models()
    assert "version 3: its shape trained from random weights has accuracy 0.250 on test" in capsys.readouterr().out


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
