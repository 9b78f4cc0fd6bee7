"""`compactlm predict` on a real run: version, alias and round are one model, in each of its forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import Command
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def asked(command: Command, project: Project, *arguments: str) -> list[dict[str, str]]:
    code, printed, said = command(project, "predict", *arguments, "--json")
    assert code == 0, said
    return [json.loads(line) for line in printed.splitlines()]


def test_every_name_of_a_model_leads_to_its_files(finished: Project, command: Command, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("A fine film.\nBad, slow and dull.\nGreat!\n")
    plain: list[dict[str, str]] = []
    for form in ([], ["--onnx"], ["--int8"]):
        first, *others = (asked(command, finished, name, str(texts), *form) for name in ("tiny/3", "3", "r3"))
        assert all(other == first for other in others)
        assert [set(row) for row in first] == [{"text", "label", "score"}] * 3
        plain = plain or first
        assert form == ["--int8"] or [row["label"] for row in first] == [row["label"] for row in plain]
    champion = asked(command, finished, "champion", str(texts))
    assert champion == asked(command, finished, "tiny@champion", str(texts))


def test_what_is_not_there_is_a_sentence(finished: Project, command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A fine film.\n")
    code, _, said = command(finished, "predict", "tiny/9", str(tmp_path / "texts.txt"))
    assert (code, "there is no such version; registered: " in said) == (2, True)


def test_a_version_whose_round_was_made_anew_has_no_int8_file_here(project: Project, command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A fine film.\n")
    (project.folder / "artifacts/rounds/r3/exported/model.onnx").unlink()
    code, _, said = command(project, "predict", "tiny/3", str(tmp_path / "texts.txt"), "--int8")
    assert code == 2
    assert "tiny/3 (r3): there is no model.int8.onnx; `compactlm export tiny/3 --out exported` writes it" in said
    assert asked(command, project, "tiny/3", str(tmp_path / "texts.txt"), "--onnx")
