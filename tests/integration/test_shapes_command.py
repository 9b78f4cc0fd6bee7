"""`compactlm shapes`: what each round makes of its parent, before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.params.file import apply_overrides
from tests.families import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "labelled_epochs: 1, transfer_epochs: 1.0, learning_rate: 1.0e-4"
ROUNDS = [
    f"rounds={{r1: {{parent: teacher, ratio: 2, vocabulary: 80, {TRAINING}}}, "
    f"r2: {{parent: r1, flops_per_example: 200000, {TRAINING}}}, "
    "r3: {parent: r2, granularity: n_m, criterion: wanda, pattern: '2:4', schedule: single, " + TRAINING + "}}"
]


@pytest.fixture
def project(tmp_path: Path, tiny_families: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of three rounds, none of which gives all axes."""
    overrides = [f"teacher.model=path:{tiny_families / 'bert/teacher'}", *ROUNDS]
    text = apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), overrides, "params.yaml")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code of `compactlm shapes ARGUMENTS` and what it prints."""
    monkeypatch.setattr(sys, "argv", ["compactlm", "shapes", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr()
    return int(exit_.value.code or 0), said.out + said.err


def test_every_round_is_shown_with_the_shape_it_reaches(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = shown(monkeypatch, capsys, "--json")
    assert code == 0
    rows: dict[str, Any] = {row["round"]: row for row in json.loads(text)}
    assert rows["teacher"]["shape"]["vocabulary"] == CONFIGS["bert"]["vocab_size"]
    assert 2.0 <= rows["r1"]["ratio"] <= 2.0 / 0.95 + 0.01
    assert rows["r1"]["shape"]["vocabulary"] == 80
    assert rows["r2"]["params_total"] < rows["r1"]["params_total"]
    assert rows["r3"]["shape"] == rows["r2"]["shape"]
    assert [rows[name]["how"] for name in ("r1", "r2", "r3")] == [
        "solved for ratio: 2.0",
        "solved for flops_per_example: 200,000",
        "masks, 2:4",
    ]
    code, text = shown(monkeypatch, capsys)
    assert code == 0
    assert all(f"{row['params_total']:,}" in text.split() for row in rows.values())


def test_the_candidates_of_a_round_start_with_the_one_that_is_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rounds = shown(monkeypatch, capsys, "--json")
    code, text = shown(monkeypatch, capsys, "r1", "--json")
    assert code == 0
    found = json.loads(text)
    assert found[0]["shape"] == json.loads(rounds)[1]["shape"]
    assert found[0]["loss"] == min(one["loss"] for one in found)
    code, text = shown(monkeypatch, capsys, "r3")
    assert code == 2
    assert "r3: is no round of params.yaml with a budget; such are r1, r2" in text
