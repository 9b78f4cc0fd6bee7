"""From a person's file to a description of a run that `compactlm check` finds nothing wrong with, in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.files import read_json
from tasks.params.file import load_params
from tests.pipeline.conftest import Command
from tests.tiny_project import Project, labelled_rows


@pytest.fixture
def fresh(tiny_project: Project, tmp_path: Path) -> Project:
    return tiny_project.copy(tmp_path / "project")


def teacher_of(project: Project) -> str:
    return str(load_params(project.folder / "params.yaml").sources()["teacher.model"])


def test_tabs_without_a_header_become_a_run(fresh: Project, tmp_path: Path, command: Command) -> None:
    before = (fresh.folder / "params.yaml").read_text()
    file = tmp_path / "opinions.txt"
    file.write_text("".join(f"{('bad', 'good')[int(row['label'])]}\t{row['text']}\n" for row in labelled_rows()[:300]))
    status, printed, errors = command(fresh, "init", str(file), "--teacher", teacher_of(fresh), "--json")
    assert (status, errors) == (0, "")
    told = json.loads(printed)
    assert told["copy"] == "data/opinions.csv"
    assert told["rows"] == {"bad": 150, "good": 150}
    assert told["params"]["data"]["source"] == "path:data/opinions.csv"
    assert load_params(fresh.folder / "params.yaml").model_dump(mode="json")["data"]["labels"] == {"0": "bad", "1": "good"}
    status, printed, errors = command(fresh, "check")
    assert (status, errors) == (0, ""), printed
    assert command(fresh, "undo")[0] == 0
    assert (fresh.folder / "params.yaml").read_text() == before


def test_numbers_get_the_names_that_are_given(fresh: Project, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "stars.jsonl"
    rows = [{"review": row["text"], "stars": 1 + 4 * int(row["label"])} for row in labelled_rows()[:300]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("init", str(file), "--teacher", teacher_of(fresh), "--classes", "worst, best")
    assert command(fresh, *asked)[0] == 0
    params = load_params(fresh.folder / "params.yaml").model_dump(mode="json")
    assert params["data"]["labels"] == {"0": "worst", "1": "best"}
    assert (fresh.folder / "data/stars.csv").exists()
    status, _, errors = command(fresh, "init", str(file), "--teacher", teacher_of(fresh), "--classes", "one,two,three")
    assert status == 2
    assert "2 different names are needed, for 1, 5" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: there is no such file"),
        (["rows.csv", "--column", "texts=a"], "write text=NAME or label=NAME"),
        (["rows.csv", "--ratio", "400"], "ratio"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(fresh: Project, command: Command, arguments: list[str], words: str) -> None:
    (fresh.folder / "rows.csv").write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in labelled_rows()[:300]))
    before = (fresh.folder / "params.yaml").read_text()
    status, _, errors = command(fresh, "init", *arguments, "--teacher", teacher_of(fresh))
    assert status == 2
    assert words in errors
    assert "Traceback" not in errors
    assert (fresh.folder / "params.yaml").read_text() == before
    assert not (fresh.folder / "data").exists()
    assert (
        not list(fresh.folder.glob(".compactlm/params-changes.json"))
        or read_json(fresh.folder / ".compactlm/params-changes.json") == []
    )
