"""The command line: what it says, what it writes, how it ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from tasks.cli import app as cli
from tasks.cli import show
from tasks.cli.console import RunLines
from tasks.errors import DataError, ParamsError, StageError
from tasks.running.last_run import computing_seconds, read_last_run, sentence, write_last_run
from tasks.running.start import find_workspace

ROOT = Path(__file__).resolve().parents[3]
COMMANDS: Any = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a committed project without stages."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def end(monkeypatch: pytest.MonkeyPatch, project: Path, *arguments: str) -> int:
    """Return the exit code of `compactlm ARGUMENTS` run in a project."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["compactlm", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "status",
        "models",
        "report",
        "serve",
        "push",
        "ui",
        "gate",
        "promote",
        "approve",
        "reject",
        "rollback",
        "history",
        "watch",
        "compare",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: compactlm {command}" in result.output
    assert "--json" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "rounds.r3.layes=3"], "did you mean 'layers'"),
        (["--set", "rounds.r3.heads=5"], "does not divide"),
        (["--set", "rounds.r3.layers=9"], "is larger than its parent's"),
        (["--set", "seed"], "no '='"),
        (["--params", "missing.yaml"], "there is no such file"),
        (["--set", "teacher.model=path:/missing/model"], "/missing/model"),
    ],
)
def test_bad_input_ends_with_code_2_and_changes_nothing(
    project: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "params.yaml").read_text()
    assert end(monkeypatch, project, "run", *arguments) == 2
    assert words in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == before
    assert {path.name for path in (project / ".compactlm").rglob("*")} <= {"run.lock"}
    assert not (project / "sources.lock").exists()


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (DataError("three rows"), 2, "three rows"),
        (StageError("prune@r1", "x"), 1, "prune@r1: x"),
        (KeyboardInterrupt(), 130, "`compactlm status` starts it again"),
        (OSError(30, "Read-only file system", "a.txt"), 2, "'a.txt'"),
    ],
)
def test_exit_codes_tell_who_can_mend_it(
    project: Path,
    fault: BaseException,
    code: int,
    words: str,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> None:
        raise fault

    monkeypatch.setattr(show, "find_project", fails)
    assert end(monkeypatch, project, "status", *(["--json"] if as_json else [])) == code
    said = capsys.readouterr()
    assert words.replace("status`", "status --json`" if as_json else "status`") in said.err
    assert as_json or said.out == ""
    if as_json:
        answer = json.loads(said.out)
        assert answer["exit_code"] == code
        assert answer["error"] in said.err


def _needed(command: Any) -> list[str]:
    """Return the arguments without which a command is not even understood."""
    needed = [parameter for parameter in command.params if parameter.required]
    return [word for parameter in needed for word in (*parameter.opts[:1], "r1") if word.startswith("-") or word == "r1"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "doctor"])  # which looks at any machine
def test_every_command_answers_in_json_outside_of_a_project(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (_needed(COMMANDS[name]), ["--no-such-option"]):
        assert end(monkeypatch, tmp_path, name, *words, "--json") == 2
        said = capsys.readouterr()
        answer = json.loads(said.out)
        assert answer == {"error": answer["error"], "exit_code": 2}
        assert answer["error"] in said.err
        assert said.err.startswith("error: ")
    assert "no-such-option" in answer["error"]


def test_an_interrupted_run_says_how_to_go_on_and_sigterm_is_no_different(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("tasks.cli.run.find_project", ended)
    assert end(monkeypatch, project, "run", "--set", "seed=3", "--json") == 130
    said = capsys.readouterr()
    assert said.err == "interrupted: `compactlm run` goes on where this stopped\n"
    assert json.loads(said.out)["exit_code"] == 130


def test_the_project_is_found_from_a_folder_inside_it(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    inside = project / "a" / "b"
    inside.mkdir(parents=True)
    assert find_workspace(inside) == project
    with pytest.raises(ParamsError, match="change into a compactlm project"):
        find_workspace(tmp_path_factory.mktemp("elsewhere"))


def test_models_before_the_first_run_is_an_empty_list(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert end(monkeypatch, project, "models", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (project / ".compactlm").exists()


def test_report_says_what_to_do_when_there_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(monkeypatch, project, "report") == 2
    assert "`compactlm run` writes it" in capsys.readouterr().err


def test_overhead_is_wall_time_without_the_computing_of_executed_stages(tmp_path: Path) -> None:
    began = "2026-01-01T00:00:00Z"
    first = {"name": "a", "state": "executed", "started_at": began, "compute_seconds": 90.0}
    stages = [first, {"name": "b", "state": "skipped"}]
    record = write_last_run(tmp_path, "completed", stages, 100.0)
    assert (record["compute_seconds"], record["overhead_seconds"], record["overhead_share"]) == (90.0, 10.0, 0.1)
    assert sentence(record) == "overhead 10 s of 100 s, 10.0 %"
    assert read_last_run(tmp_path) == record


def test_stages_that_compute_side_by_side_count_once() -> None:
    began = [("00:00:00", 50.0), ("00:00:10", 20.0), ("00:00:40", 30.0), ("00:02:00", 5.0)]
    stages = [{"started_at": f"2026-01-01T{at}Z", "compute_seconds": seconds} for at, seconds in began]
    assert computing_seconds(stages) == 70.0 + 5.0


def test_lines_of_stages_are_shown_without_what_dvc_says(capsys: pytest.CaptureFixture[str]) -> None:
    handler = RunLines(Console(stderr=True, soft_wrap=True))
    for line, stage in (("> python -m tasks", "a"), ("progress: train 1/2", "a"), ("a executed in 1.0 s", None)):
        entry = logging.makeLogRecord({"msg": line, "stage": stage} if stage else {"msg": line})
        handler.emit(entry)
    assert capsys.readouterr().err == "a: train 1/2\na executed in 1.0 s\n"


def test_report_says_when_it_is_of_a_model_that_params_no_longer_names(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "artifacts").mkdir()
    (project / "artifacts/report.html").write_text("<title>old: r3 is smaller</title><header></header>\n", encoding="utf-8")
    assert end(monkeypatch, project, "report") == 0
    path, words = capsys.readouterr().out.splitlines()
    assert "No model is champion." in Path(path).read_text(encoding="utf-8")
    assert words == "it is of old; `compactlm run` writes one of compactlm-sentiment, the name in params.yaml"
    (project / "artifacts/report.html").write_text("<title>compactlm-sentiment: r3</title>\n", encoding="utf-8")
    assert end(monkeypatch, project, "report", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": path, "model": "compactlm-sentiment", "decisions": []}
