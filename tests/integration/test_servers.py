"""It holds on the servers of a team: PostgreSQL, MLflow and Prefect with users, files in S3. One stack for the whole file."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from infra import keep
from infra.stack import Stack
from tasks.errors import AwayError, UserError
from tasks.files import digest, read_json
from tasks.git import read_refs
from tasks.params.file import load_params
from tasks.promotion.first_champion import settle_champion
from tasks.registry.live import LEAVE_SECONDS, open_recorder
from tasks.registry.reading import PREFIX
from tasks.registry.tracking import FILES_SHA256, Tracker
from tasks.running.doctor import examine
from tasks.running.machine import Finding
from tests.integration import servers
from tests.integration.servers import Team, Told, named
from tests.pipeline import conftest as pipeline
from tests.tiny_project import ROOT, Project, environment

stack, team = servers.stack, servers.team
tiny_project, finished = pipeline.tiny_project, pipeline.finished
SECRET = "not%2Fto%40be-shown"


@pytest.fixture(scope="module")
def recorded(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all stages are up to date, and of which nothing has been recorded anywhere yet."""
    project = finished.copy(tmp_path_factory.mktemp("team") / "project")
    shutil.rmtree(project.folder / ".compactlm")
    (project.folder / "decisions.jsonl").unlink()
    for name in project.shell("git", "for-each-ref", "--format=%(refname)", "refs/compactlm").split():
        project.shell("git", "update-ref", "-d", name)
    project.set("promotion.gates=[{metric: accuracy, set: test, versus: champion, max_drop: 1.0}, {check: lineage}]")
    return project.folder


def experiments(stack: Stack) -> set[str]:
    found = stack._ask("POST", "2.0/mlflow/experiments/search", {"max_results": "100"})
    return {one["name"] for one in found["experiments"]}


def test_an_outage_costs_a_training_nothing_and_the_first_record_of_all_lacks_nothing(recorded: Path, team: Team) -> None:
    before = experiments(team.stack)
    looked = team.run("reader", recorded, "models", "--json")
    assert (looked.code, looked.json) == (0, [])
    assert experiments(team.stack) == before  # who reads makes nothing, and so owns nothing
    team.stack.prepare_project("tiny")

    team.become("runner")
    recorder, _ = open_recorder(recorded, load_params(recorded / "params.yaml"), settle_champion)
    steps = recorded / ".compactlm/scratch/distill@r1/steps.jsonl"
    steps.parent.mkdir(parents=True)
    lines = (recorded / "artifacts/rounds/r1/trained/steps.jsonl").read_text(encoding="utf-8")
    with recorder.follow("distill@r1"):
        steps.write_text(lines.partition("\n")[0] + "\n", encoding="utf-8")
    team.stack.stop("mlflow")
    began = time.monotonic()
    with recorder.follow("distill@r1"):
        steps.write_text(lines, encoding="utf-8")
    with pytest.raises(AwayError, match=r"does not answer .*nothing is lost: `compactlm publish` records it"):
        recorder.finish({})
    recorder.fail()  # says nothing worse than that
    assert time.monotonic() - began < LEAVE_SECONDS + 5
    refused = team.run("runner", recorded, "run", "--json")
    assert (refused.code, "cannot be reached" in refused.json["error"]) == (2, True)
    team.stack.launch("mlflow")
    team.stack.wait("mlflow")

    address = team.stack.url("mlflow").replace("http://", f"http://runner:{team.stack.password('runner')}@")
    ran = team.run("runner", recorded, "run", "--json", MLFLOW_TRACKING_URI=address, MLFLOW_TRACKING_PASSWORD="another")
    assert (ran.code, ran.json["exit_code"]) == (0, 0), ran.err
    tracker = Tracker(recorded, "tiny")
    assert [entry.version for entry in tracker.versions("tiny")] == ["1", "2", "3"]
    assert tracker.aliases("tiny") == {"champion": "3", "challenger": "3"}, ran.err
    [run] = tracker.find_runs({"kind": "round", "round": "r1"})
    wanted = [(line["loss"], line["step"]) for line in map(json.loads, lines.splitlines()) if "loss" in line]
    assert sorted(tracker.run_points(run)["loss"], key=lambda point: point[1]) == wanted
    _is_nowhere(team.stack.password("runner"), recorded, ran)


def test_a_version_is_promoted_and_taken_back(recorded: Path, team: Team) -> None:
    promoted = team.run("promoter", recorded, "promote", "1", "--json")
    assert promoted.json["outcome"] == "done", promoted.err
    assert team.run("promoter", recorded, "rollback", "--reason", "try", "--json").json["outcome"] == "done"
    assert team.run("reader", recorded, "history", "--check", "--json").json["differences"] == []
    assert Tracker(recorded, "tiny").aliases("tiny") == {"champion": "3", "previous": "1", "challenger": "3"}


def test_what_is_downloaded_is_what_was_recorded_and_keeps_its_path(recorded: Path, team: Team, tmp_path: Path) -> None:
    team.become("reader")
    tracker = Tracker(recorded, "tiny")
    entry = tracker.versions("tiny")[0]
    tags = {key.removeprefix(PREFIX): value for key, value in entry.tags.items()}
    for folder in (tracker.model_files(tags["model_id"], tmp_path), tracker.local_model(tags["model_id"])):
        assert folder is not None
        assert digest(folder)["sha256"] == tracker.model_tags(tags["model_id"])[FILES_SHA256]
    for name in ("evidence/quality.json", "receipts/evaluate@r1.json", "predictions/test.parquet"):
        assert tracker.run_files(tags["run_id"], name, tmp_path) == tmp_path / "runs" / tags["run_id"] / name


@pytest.mark.slow
def test_another_project_is_listed_by_name_alone_and_nothing_of_it_is_fetched(recorded: Path, built: Path, team: Team) -> None:
    other = named(built, "beta")
    team.stack.prepare_project("beta")
    assert [row["name"] for row in team.run("reader", other, "models", "--all", "--json").json] == ["tiny"] * 3
    assert not (other / ".compactlm" / "models").exists()
    assert not (other / ".compactlm" / "runs").exists()
    rows = team.run("reader", recorded, "models", "--json").json
    assert {row["name"] for row in rows} == {"tiny"}
    assert all((Path(row["path"]) / "model.safetensors").exists() for row in rows)
    assert team.run("reader", other, "models").out.startswith("no model is registered yet")


def test_who_lacks_a_right_is_told_which_server_refuses_whom_and_what_is_missing(recorded: Path, team: Team, built: Path) -> None:
    where, log = team.stack.url("mlflow"), (recorded / "decisions.jsonl").read_bytes()
    refused = team.run("reader", recorded, "promote", "2", "--json")
    assert refused.code == 2
    assert refused.json["error"].startswith(
        f"{where} refuses the user 'reader': EDIT on the registered model tiny is missing; ask whoever manages that server"
    )
    assert (recorded / "decisions.jsonl").read_bytes() == log  # what cannot be done is not decided
    stranger = {"MLFLOW_TRACKING_USERNAME": "nobody", "MLFLOW_TRACKING_PASSWORD": "wrong"}
    unknown = team.run("reader", recorded, "models", "--json", **stranger)
    assert unknown.code == 2
    assert unknown.json["error"].startswith(f"{where} does not know the user 'nobody', or the password is another one; ")


def test_servers_are_asked_before_a_run_and_all_that_is_wrong_is_said_at_once(recorded: Path, team: Team) -> None:
    mlflow, prefect = team.stack.url("mlflow"), f"{team.stack.url('prefect')}/api"
    wrong = {"PREFECT_API_URL": prefect, "PREFECT_API_AUTH_STRING": "compactlm:wrong"}
    faults = team.run("reader", recorded, "check", "--json", **wrong).json["faults"]
    for words in (
        f"{mlflow} refuses the user 'reader': EDIT on the experiment tiny is missing",
        f"{mlflow} refuses the user 'reader': EDIT on the registered model tiny is missing",
        f"PREFECT_API_URL: {prefect} does not take the user and password of PREFECT_API_AUTH_STRING",
    ):
        assert any(words in fault for fault in faults), (words, faults)
    other = team.stack.url("s3")
    faults = team.run("runner", recorded, "check", "--json", PREFECT_API_URL=other, MLFLOW_TRACKING_URI=other).json["faults"]
    for words in ("is no API of Prefect", "is no server of MLflow"):
        assert any(words in fault for fault in faults), faults
    honest = team.run("runner", recorded, "check", "--json").json["faults"]
    assert not any(fault.startswith(("MLFLOW", "PREFECT")) for fault in honest), honest


def test_the_doctor_says_which_versions_are_on_both_sides_and_who_may_do_what(recorded: Path, team: Team) -> None:
    def told(role: str) -> dict[str, Finding]:
        team.become(role)
        environ = {**os.environ, "MLFLOW_BACKEND_STORE_URI": team.stack.database("mlflow")}
        with subprocess.Popen(["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as no_torch:
            found = list(examine(recorded, environ, no_torch, time.monotonic() + 60))
        assert team.stack.password(role) not in str(found)
        assert team.stack.password("database") not in str(found)
        return {finding.about: finding for finding in found}

    runner, reader, promoter = (told(role) for role in ("runner", "reader", "promoter"))
    for about, package in (("MLflow", "mlflow"), ("Prefect", "prefect")):
        version = metadata.version(package)
        assert (runner[about].state, dict(runner[about].facts)) == ("fine", {"there": version, "here": version})
    assert "there, psycopg2 " in runner["PostgreSQL"].says
    assert runner["Prefect: rights"].says.startswith("takes the password of PREFECT_API_AUTH_STRING")
    assert "Prefect: rights" not in reader  # who has no password of it
    rights = {"runner": ("EDIT", "EDIT"), "reader": ("READ", "READ"), "promoter": ("READ", "EDIT")}
    for role, found in (("runner", runner), ("reader", reader), ("promoter", promoter)):
        facts = found["MLflow: rights"].facts
        assert (facts["user"], facts["experiment"], facts["registered_model"]) == (role, *rights[role])
        assert found["MLflow: rights"].state == ("fine" if role == "runner" else "warning")
    assert "EDIT on the experiment and EDIT on the registered model is missing" in reader["MLflow: rights"].do
    team.become("reader", MLFLOW_TRACKING_PASSWORD="wrong")
    with subprocess.Popen(["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as no_torch:
        found = list(examine(recorded, os.environ, no_torch, time.monotonic() + 60))
    assert [finding.state for finding in found if finding.about.startswith("MLflow")] == ["wrong"]


def test_a_password_in_an_address_comes_out_nowhere(recorded: Path, team: Team) -> None:
    wrong = team.stack.url("mlflow").replace("http://", f"http://runner:{SECRET}@")
    failed = team.run("runner", recorded, "models", "--json", MLFLOW_TRACKING_URI=wrong)
    faster = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    away = team.run("runner", recorded, "models", "--json", MLFLOW_TRACKING_URI=f"http://runner:{SECRET}@127.0.0.1:9", **faster)
    assert (failed.code, away.code) == (2, 2)
    assert "127.0.0.1:9 does not answer" in away.json["error"]
    for secret in (SECRET, "not/to@be-shown"):
        _is_nowhere(secret, recorded, failed, away)


def _is_nowhere(secret: str, project: Path, *said: Told) -> None:
    """Assert that a password is in nothing that commands said, in no record in Git and in no file of a project."""
    texts = [text for told in said for text in (told.out, told.err)]
    texts += [str(text) for text in read_refs(project, "refs/compactlm").values()]
    texts += [path.read_bytes().decode(errors="replace") for path in project.rglob("*") if path.is_file()]
    assert not any(secret in text for text in texts)


@pytest.mark.slow
def test_watch_goes_on_after_a_restart_and_says_so(recorded: Path, team: Team) -> None:
    told: list[tuple[str, list[str]]] = []
    events: queue.Queue[str] = queue.Queue()
    team.become("reader", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    watching = threading.Thread(target=_watch, args=(recorded, events, told), daemon=True)
    watching.start()
    _until(lambda: len(told) == 1)
    team.stack.stop("mlflow")
    events.put("asked")
    _until(lambda: len(told) == 2)
    assert told[1][1][0].startswith(f"the registry cannot be asked: {team.stack.url('mlflow')} does not answer")
    team.stack.launch("mlflow")
    team.stack.wait("mlflow")
    events.put("asked")
    _until(lambda: len(told) == 3)
    assert told[2] == ("MLflow answers again", [])
    watching.join(30)


@pytest.mark.slow
def test_an_honest_audit_on_the_servers_has_no_fail(recorded: Path, team: Team) -> None:
    report = team.run("reader", recorded, "audit", "tiny@champion", "--json")
    assert (report.code, report.json["result"], report.json["counts"]["FAIL"]) == (0, "PASS", 0), report.err


@pytest.mark.slow
def test_the_servers_come_back_from_their_backup_with_users_aliases_and_bytes(recorded: Path, team: Team, tmp_path: Path) -> None:
    before = team.run("reader", recorded, "models", "--json").json
    first = keep.backup(team.stack, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    again = keep.backup(team.stack, tmp_path / "backup")
    assert again["bytes"] - first["bytes"] < first["bytes"] / 2  # what is in the bucket is there once
    assert again["new_bytes"] < first["new_bytes"] / 2
    with tempfile.TemporaryDirectory(prefix="compactlm-restored-") as name:
        Path(name).chmod(0o711)
        other = Stack(Path(name))  # from a bucket into a folder, beside the one that runs
        done = keep.restore(other, tmp_path / "backup")
        assert done["notes"] == ["other ports than before, for those are in use here: postgres, mlflow, prefect, s3"]
        with pytest.raises(UserError, match="it is not empty, and nothing there is written over"):
            keep.restore(other, tmp_path / "backup")
        with other:
            restored = Team(other, team._patch, team._capsys)
            shutil.rmtree(recorded / ".compactlm" / "models", ignore_errors=True)  # downloads of the former server
            shutil.rmtree(recorded / ".compactlm" / "runs", ignore_errors=True)
            assert restored.run("reader", recorded, "models", "--json").json == before
            assert restored.run("reader", recorded, "history", "--check", "--json").json["differences"] == []


@pytest.mark.slow
def test_the_index_is_made_again_on_the_servers(recorded: Path, team: Team) -> None:
    before = [(row["model_sha256"], row["aliases"]) for row in team.run("reader", recorded, "models", "--json").json]
    experiment = team.stack._ask("GET", "2.0/mlflow/experiments/get-by-name?experiment_name=tiny")["experiment"]
    renamed = {"experiment_id": experiment["experiment_id"], "new_name": "former"}
    team.stack._ask("POST", "2.0/mlflow/experiments/update", renamed)
    team.stack._ask("POST", "2.0/mlflow/registered-models/rename", {"name": "tiny", "new_name": "former"})
    team.stack.prepare_project("tiny")
    again = team.run("runner", recorded, "publish", "--rebuild", "--json")
    assert (again.code, again.json["lost"], again.json["faults"]) == (0, [], []), again.err
    rows = team.run("reader", recorded, "models", "--json").json
    assert [row["model_sha256"] for row in rows] == [sha256 for sha256, _ in before]
    assert [[alias for alias in row["aliases"] if alias != "challenger"] for row in rows] == [
        [alias for alias in aliases if alias != "challenger"] for _, aliases in before
    ]


@pytest.mark.slow
def test_a_run_whose_mlflow_goes_away_is_done_and_says_what_delivers_it(fresh: Path, team: Team) -> None:
    project = named(fresh, "epsilon")
    team.stack.prepare_project("epsilon")
    command = [sys.executable, "-c", "from tasks.cli.app import main; main()", "run", "--json"]
    env = {**environment(), **team.stack.environment("runner"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        said = ""
        for line in running.stderr:
            said += line
            if line.startswith("distill@r1 executed"):
                team.stack.stop("mlflow")
        record = json.loads(running.stdout.read())
    assert (running.wait(), record["exit_code"], record["state"]) == (4, 4, "not recorded"), said
    assert record["result"]["next"] == "compactlm publish"
    assert "`compactlm publish` records it" in record["undelivered"]
    assert {row["state"] for row in record["stages"]} == {"executed"}
    assert read_json(project / ".compactlm/last_run.json")["state"] == "not recorded"
    team.stack.launch("mlflow")
    team.stack.wait("mlflow")
    assert team.run("runner", project, "publish", "--json").code == 0
    assert sorted(Tracker(project, "epsilon").numbers("epsilon").values()) == ["1", "2", "3"]


def _watch(project: Path, events: queue.Queue[str], told: list[tuple[str, list[str]]]) -> None:
    from flows.watch import watch
    from tasks.promotion.webhook import Receiver

    def tell(because: str, faults: list[str]) -> None:
        told.append((because, faults))
        if len(told) == 3:
            raise InterruptedError

    receiving = Receiver("127.0.0.1", 0, "a secret of the test, long enough", events.put)
    with receiving as receiver, contextlib.suppress(InterruptedError):
        watch(project, receiver, events, 600, False, tell)


def _until(done: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
