"""Questions about the lineage of the models of a real run."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.audit.questions import diff, lineage_down, lineage_up
from tasks.errors import UserError
from tasks.files import file_sha256
from tests.pipeline.conftest import Command
from tests.tampering import moved_away
from tests.tiny_project import Project


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_upwards_a_model_leads_to_its_teacher_and_its_data(finished: Project) -> None:
    stages = {row["stage"]: row for row in lineage_up(finished.folder, "tiny/2")["stages"]}
    assert stages["prune@r2"]["rests_on"] == ["distill@r1", "fetch", "prepare", "prune@r1"]
    read = ["artifacts/fetched/teacher/model.safetensors", "artifacts/rounds/r1/trained/model/model.safetensors"]
    assert stages["prune@r2"]["parent_models"] == {path: file_sha256(finished.folder / path) for path in read}
    assert stages["fetch"]["rests_on"] == []
    assert "prune@r3" not in stages


@pytest.mark.parametrize(
    ("thing", "versions"),
    [
        ("artifacts/data/sets/train.parquet", [1, 2, 3]),
        ("artifacts/rounds/r2/trained/model/model.safetensors", [2, 3]),
        ("artifacts/rounds/r3/exported/model.onnx", [3]),
        ("artifacts/no/such/file", []),
    ],
)
def test_downwards_a_thing_leads_to_the_models_that_rest_on_it(finished: Project, thing: str, versions: list[int]) -> None:
    def versions_on(asked: str) -> list[Any]:
        return [model["version"] for model in lineage_down(finished.folder, asked)["models"]]

    assert versions_on(thing) == versions
    if versions:
        assert versions_on(file_sha256(finished.folder / thing)[:12]) == versions


def test_downwards_from_a_commit_or_a_source(finished: Project) -> None:
    commit = finished.shell("git", "rev-parse", "--short=8", "HEAD").strip()
    assert len(lineage_down(finished.folder, commit)["models"]) == 3
    source = next(
        line.split("source: ")[1] for line in finished.shell("cat", "params.yaml").splitlines() if "source: path" in line
    )
    assert len(lineage_down(finished.folder, source)["models"]) == 3


def test_downwards_from_a_row_leads_to_the_models_that_have_seen_it(finished: Project) -> None:
    sets = finished.folder / "artifacts/data/sets"
    row = pq.read_table(sets / "train.parquet")["row_id"][0].as_py()
    in_calibration = row in pq.read_table(sets / "calibration.parquet")["row_id"].to_pylist()
    answer = lineage_down(finished.folder, row)
    assert [model["version"] for model in answer["models"]] == [1, 2, 3]
    assert answer["models"][0]["sets"] == (["calibration", "train"] if in_calibration else ["train"])
    assert lineage_down(finished.folder, "0" * 16) == {"thing": "0" * 16, "models": [], "unread": []}
    with moved_away(sets), moved_away(finished.folder / ".dvc/cache/files"):
        answer = lineage_down(finished.folder, row)
    assert (answer["models"], [model["version"] for model in answer["unread"]]) == ([], [1, 2, 3])


def test_a_difference_names_what_changed_and_nothing_else(finished: Project) -> None:
    same = diff(finished.folder, "tiny/3", "tiny@champion")
    assert all(same[section] == {} for section in ("data", "params", "code", "environment", "git", "files", "results"))
    other = diff(finished.folder, "tiny/2", "tiny/3")
    assert (other["data"], other["params"], other["code"]) == ({}, {}, {})  # the same run: another round of it
    assert other["files"]["artifacts/rounds/r3/verdict.json"][0] is None
    sizes = other["results"]["cost/params_total"]
    assert sizes[0] > sizes[1]


def test_the_commands_answer(finished: Project, command: Command) -> None:
    code, printed, _ = command(finished, "lineage")
    assert code == 0
    assert printed.startswith("tiny/3 @challenger @champion (r3) rests on\nfetch ")
    code, printed, _ = command(finished, "diff", "tiny/2", "tiny/3")
    assert code == 0
    assert "data: nothing differs" in printed
    assert json.loads(command(finished, "lineage", "--down", "artifacts/nothing", "--json")[1])["models"] == []


def test_a_question_that_contradicts_itself_is_refused(finished: Project, command: Command) -> None:
    assert command(finished, "lineage", "tiny/3", "--down", "x")[0] == 2
    with pytest.raises(UserError, match="write MODEL, MODEL@ALIAS or MODEL/VERSION"):
        lineage_up(finished.folder, "tiny@")
