"""The pages of `compactlm ui` reach their own servers, whatever else runs on this machine and whatever is set for that."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.server import configure, mlflow_page, own_page, prefect_server
from tasks.children import local_opener

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
def another_server(asked: list[str]) -> Iterator[None]:
    """Hold port 4200 and write down what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_OPTIONS = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 4200), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


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
    asked: list[str] = []
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    configure(tmp_path)
    with another_server(asked), prefect_server() as prefect, mlflow_page(uri) as mlflow:
        settings = json.loads(local_opener.open(f"{prefect}/ui-settings").read())
        assert settings["api_url"] == f"{prefect}/api"
        with temporary_settings({PREFECT_API_URL: f"{prefect}/api"}), get_client(sync_client=True) as client:
            client.create_flow_from_name("a-flow-of-ours")
        assert "a-flow-of-ours" in shown(f"{prefect}/flows", tmp_path / "profile")
        assert "an-experiment-of-ours" in shown(f"{mlflow}/#/experiments", tmp_path / "profile")
    assert asked == []
