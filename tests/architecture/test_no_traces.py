"""No trace for anything a person can mend: what libraries raise at each door is a sentence with exit code 2."""

from __future__ import annotations

import errno
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.errors import EXIT_USER_ERROR, TRACE
from tasks.running import stage

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # Great Expectations imports it
FIRST_LINE = "the words of the library"


def raised(module: str, name: str, *arguments: object) -> Callable[[], BaseException]:
    """Return what makes an error of a library, which is imported for that only then."""
    return lambda: getattr(importlib.import_module(module), name)(*(arguments or (FIRST_LINE,)))


ERRORS: dict[str, Callable[[], BaseException]] = {
    "MLflow": raised("mlflow.exceptions", "MlflowException"),
    "MLflow's REST": raised("mlflow.exceptions", "RestException", {"error_code": "INTERNAL_ERROR", "message": FIRST_LINE}),
    "DVC": raised("dvc.exceptions", "DvcException"),
    "DVC's lock": raised("dvc.lock", "LockError"),
    "Prefect": raised("prefect.exceptions", "PrefectException"),
    "Prefect's server": raised("httpx", "ConnectError"),
    "requests": raised("requests.exceptions", "ConnectionError"),
    "urllib": raised("urllib.error", "URLError"),
    "SQLAlchemy": raised("sqlalchemy.exc", "OperationalError", FIRST_LINE, None, Exception(FIRST_LINE)),
    "SQLite": raised("sqlite3", "OperationalError"),
    "Great Expectations": raised("great_expectations.exceptions", "GreatExpectationsError"),
    "safetensors": raised("safetensors", "SafetensorError"),
    "Arrow": raised("pyarrow.lib", "ArrowInvalid"),
    "pandas": raised("pandas.errors", "ParserError"),
    "pandas, empty": raised("pandas.errors", "EmptyDataError"),
    "ruamel": raised("ruamel.yaml.error", "YAMLError"),
    "ruamel's scanner": raised("ruamel.yaml.scanner", "ScannerError"),
    "PyYAML": raised("yaml", "YAMLError"),
    "JSON": lambda: json.JSONDecodeError(FIRST_LINE, "{", 1),
    "text": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, FIRST_LINE),
    "depth": lambda: RecursionError(FIRST_LINE),
    "memory": lambda: MemoryError(FIRST_LINE),
    "a read-only disk": lambda: OSError(errno.EROFS, FIRST_LINE, "params.yaml"),
    "no permission": lambda: PermissionError(errno.EACCES, FIRST_LINE, "params.yaml"),
    "a file in the place of a folder": lambda: NotADirectoryError(errno.ENOTDIR, FIRST_LINE, "params.yaml"),
    "a time that is over": lambda: TimeoutError(FIRST_LINE),
    "a connection": lambda: ConnectionRefusedError(errno.ECONNREFUSED, FIRST_LINE),
}
# door -> a command that goes through it. The doors that only stages use are tried below, in a stage.
DOORS = {
    "tasks.running.dvc._open": ["status"],
    "tasks.registry.tracking.Tracker": ["models"],
    "tasks.params.file.read_yaml": ["status"],
    "flows.server.prefect_server": ["ui"],
    "tasks.promotion.report.with_section": ["report"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / ".compactlm/mlflow").mkdir(parents=True)
    (folder / ".compactlm/mlflow/mlflow.db").touch()
    (folder / "artifacts").mkdir()
    (folder / "artifacts/report.html").touch()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("door", DOORS)
def test_what_a_door_raises_is_a_sentence(
    door: str, name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise ERRORS[name]()

    for setting in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", TRACE):
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(project / ".compactlm/prefect"))
    module, _, attribute = door.rpartition(".")
    monkeypatch.setattr(importlib.import_module(module), attribute, fails)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["compactlm", *DOORS[door], "--json"])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    said = capsys.readouterr()
    assert leave.value.code == EXIT_USER_ERROR
    assert said.err.startswith("error: ")
    assert FIRST_LINE in said.err
    assert "Traceback" not in said.err
    assert json.loads(said.out)["exit_code"] == EXIT_USER_ERROR
    assert FIRST_LINE in json.loads(said.out)["error"]


@pytest.mark.parametrize("name", ERRORS)
def test_so_is_what_a_stage_raises(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> int:
        raise ERRORS[name]()

    monkeypatch.delenv(TRACE, raising=False)
    monkeypatch.setattr(stage, "_main", fails)
    assert stage.main(["prune"]) == EXIT_USER_ERROR
    assert FIRST_LINE in capsys.readouterr().err


@pytest.mark.parametrize("fault", [KeyError("r9"), TypeError("a fault of ours"), AssertionError()])
def test_a_fault_of_ours_keeps_its_trace(fault: Exception, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise fault

    monkeypatch.chdir(project)
    monkeypatch.setattr(importlib.import_module("tasks.running.dvc"), "_open", fails)
    monkeypatch.setattr(sys, "argv", ["compactlm", "status"])
    with pytest.raises(type(fault)):
        cli.main()
    monkeypatch.setenv(TRACE, "1")
    monkeypatch.setattr(importlib.import_module("tasks.running.dvc"), "_open", _raise_os_error)
    with pytest.raises(OSError, match="mine"):
        cli.main()


def _raise_os_error(*_: object) -> None:
    raise OSError("mine")


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    from tasks.errors import explained
    from tasks.files import read_json

    for content, words in ((b'{"a": ', "JSON"), (b"\xff", "not UTF-8"), (b"[" * 100_000, "nested too deeply")):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises((ValueError, RecursionError)) as broken:
            read_json(tmp_path / "a.json")
        assert explained(broken.value).startswith(f"{tmp_path / 'a.json'}: ")
        assert words in explained(broken.value)
