"""The pages of `compactlm ui` reach their own servers, whatever else runs on this machine and whatever is set for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.server import configure, mlflow_page, own_page, prefect_server
from tasks.children import answers, local_opener, running

URL = "http://127.0.0.1:8123"
OTHER = {  # of a person who uses another server of Prefect's as well
    "PREFECT_UI_API_URL": "http://127.0.0.1:4200/api",
    "PREFECT_SERVER_API_PORT": "4200",
    "PREFECT_UI_SERVE_BASE": "/prefect",
    "PREFECT_UI_ENABLED": "false",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "models.example.org",
}


def test_the_page_of_prefect_is_told_the_address_that_it_is_served_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for name, value in {**OTHER, **own_page(URL)}.items():
        monkeypatch.setenv(name, value)
    ui = Settings().server.ui
    assert (ui.api_url, ui.serve_base, ui.enabled) == (f"{URL}/api", "/", True)


@contextmanager
def another_server(home: Path) -> Iterator[Path]:
    """Run another Prefect server of the person's at port 4200, which writes down what it is asked for; give that file."""
    log = home / "server.log"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {"PREFECT_HOME": str(home)}
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", "4200", "--access-log"]
    with log.open("w") as file, running(command, 5.0, env=env, stdout=file, stderr=file) as child:
        assert answers(child, "http://127.0.0.1:4200/api/health", 120.0)
        yield log


def shown(url: str, profile: Path) -> str:
    """Return a page as a browser has it once its scripts have run."""
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command = [*browser, "--virtual-time-budget=20000", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_sees_the_records_of_this_workspace(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    for name, value in OTHER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    uri = f"sqlite:///{store}"
    MlflowClient(tracking_uri=uri).create_experiment("an-experiment-of-ours")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    configure(tmp_path)
    with another_server(tmp_path / "other") as log, prefect_server() as prefect, mlflow_page(uri) as mlflow:
        settings = json.loads(local_opener.open(f"{prefect}/ui-settings").read())
        assert settings["api_url"] == f"{prefect}/api"
        with temporary_settings({PREFECT_API_URL: f"{prefect}/api"}), get_client(sync_client=True) as client:
            client.create_flow_from_name("a-flow-of-ours")
        assert "a-flow-of-ours" in shown(f"{prefect}/flows", tmp_path / "profile")
        assert "an-experiment-of-ours" in shown(f"{mlflow}/#/experiments", tmp_path / "profile")
        assert local_opener.open("http://127.0.0.1:4200/api/health").read() == b"true"
        asked = [line for line in log.read_text().splitlines() if "HTTP/1" in line]
    assert asked  # by us, for its health
    assert [line for line in asked if "/api/health" not in line] == []
