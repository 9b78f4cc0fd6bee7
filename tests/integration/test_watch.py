"""An alias moved by hand on a real MLflow server, told by its webhook to `compactlm watch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flows.server import free_port, mlflow_page
from tasks.promotion.drift import registry_faults
from tasks.registry.tracking import Tracker
from tests.integration import test_cli_registry as story

NAME = story.NAME
registry_template, project, compactlm = story.registry_template, story.project, story.compactlm


def health(address: str) -> int:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=30) as answer:
            assert "last_good_run" in json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
def test_an_alias_moved_by_hand_is_told_by_mlflow_and_found(
    project: Path, compactlm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compactlm("promote", "1").code == 0
    # MLflow sends to no http address and to no address of the own machine unless it is told to.
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("COMPACTLM_WEBHOOK_SECRET", "a secret of the test, long enough")
    store, port = f"sqlite:///{project}/.compactlm/mlflow/mlflow.db", free_port()
    address = f"http://127.0.0.1:{port}"
    with mlflow_page(store) as mlflow:
        command = [sys.executable, "-c", "from tasks.cli.app import main; main()", "watch", "--json"]
        command += ["--port", str(port), "--register", address, "--every", "60"]
        env = {**os.environ, "MLFLOW_TRACKING_URI": mlflow, "PYTHONPATH": str(story.ROOT)}
        with subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            try:
                assert json.loads(watching.stdout.readline())["because"] == "start"
                assert health(address) == 200
                monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
                Tracker(project).set_alias(NAME, "champion", "3")
                found = json.loads(watching.stdout.readline())
                assert found["because"] == f"model_version_alias created: {NAME} champion 3"
                assert found["differences"] == ["alias champion points at version 3; the log says version 1"]
                assert health(address) == 503
                assert compactlm("history", "--repair").code == 0
                assert json.loads(watching.stdout.readline())["differences"] == []
                assert health(address) == 200
            finally:
                watching.terminate()


def test_a_champion_whose_version_was_deleted_is_found(project: Path, compactlm: Any) -> None:
    assert compactlm("promote", "1").code == 0
    tracker = Tracker(project, NAME)
    tracker.client.delete_model_version(NAME, "1")  # and with it, without a word, its aliases
    assert "no registered version has its weights" in registry_faults(tracker, NAME)[0]
    assert compactlm("history", "--check").code == 2


def test_watch_needs_a_secret(project: Path, compactlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPACTLM_WEBHOOK_SECRET", raising=False)
    told = compactlm("watch")
    assert (told.code, "COMPACTLM_WEBHOOK_SECRET" in told.err) == (2, True)
