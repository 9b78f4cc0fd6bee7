"""Which of its two meanings `compactlm serve` has: a model behind HTTP, or the former name of `schedule`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.cli import serve


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Return what `schedule` is called with, in the place of a call."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(serve, "schedule", lambda **given: calls.append(given))
    monkeypatch.setattr(serve, "find_project", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return calls


def end(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["compactlm", "serve", *arguments])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    return int(leave.value.code or 0)


USUAL = {"cron": "0 2 * * *", "overlap": "skip", "audit_cron": None, "timezone": "UTC", "as_json": False}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["--json"], {"as_json": True}),
        (["--cron", "0 3 * * *", "--json"], {"cron": "0 3 * * *", "as_json": True}),
        (["--overlap=enqueue"], {"overlap": "enqueue"}),
        (["--audit-cron", "0 6 * * *", "--timezone", "Europe/Berlin"], {"audit_cron": "0 6 * * *", "timezone": "Europe/Berlin"}),
    ],
)
def test_without_a_model_it_is_schedule_and_says_so(
    arguments: list[str],
    given: dict[str, Any],
    scheduled: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end(monkeypatch, *arguments) == 0
    assert scheduled == [{**USUAL, **given}]
    assert "without a model is `compactlm schedule` now; this name will go" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["champion"], "champion: no folder with a config.json"),
        (["champion", "--int8", "--port", "9000", "--json"], "champion: no folder with a config.json"),
        (["--port", "9000"], "Missing argument 'MODEL'"),
        (["champion", "--port", "66000"], "less than or equal to 65535"),
        (["champion", "--limits", "3"], "--limits"),
        (["champion", "--cron", "0 3 * * *"], "unexpected extra argument"),
        (["--overlap", "maybe"], "maybe"),
    ],
)
def test_with_a_model_or_a_word_of_serving_it_serves_one(
    arguments: list[str],
    words: str,
    scheduled: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end(monkeypatch, *arguments) == 2
    assert words in capsys.readouterr().err
    assert scheduled == []


def test_no_option_of_schedules_is_in_its_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example: compactlm serve champion" in shown
    assert "--cron" not in shown
