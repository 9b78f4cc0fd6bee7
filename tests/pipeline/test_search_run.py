"""A round that searches for its shape, through the real command line: run, recorded, shown, and audited."""

from __future__ import annotations

import json

import pytest

from tasks.audit.walk import audit
from tasks.files import read_json
from tests.pipeline.conftest import Command
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")
KL = "best_validation_kl_nats_per_example"
R4 = (
    "rounds.r4={parent: r1, ratio: 4, vocabulary: 74, search: {candidates: 3, transfer_rows: 60, keep: 2}, "
    "labelled_epochs: 1, transfer_epochs: 1.0, learning_rate: 5.0e-3}"
)
TRIALS = "trials={rounds: [r4], candidates: [1, 2, 3], places: [1, 2]}"


@pytest.mark.slow
def test_a_round_that_searches_is_run_recorded_shown_and_audited(project: Project, command: Command) -> None:
    states = project.run("--workers", "2", "--set", R4, "--set", TRIALS)
    fourth = {f"{stage}@r4" for stage in ("prune", "distill", "export", "evaluate", "gate")}
    fourth |= {f"trial@r4-{number}" for number in (1, 2, 3)} | {f"finish@r4-{place}" for place in (1, 2)}
    assert {name for name, state in states.items() if state != "skipped"} == {*fourth, "select", "report"}
    place = project.folder / "artifacts/rounds/r4"
    search = read_json(place / "trained/search.json")
    chosen = next(one for one in search["candidates"] if one["candidate"] == search["chosen"])
    assert read_json(place / "evaluated/cost.json")["params_total"] == chosen["params_total"]
    receipt = read_json(project.folder / "artifacts/receipts/distill@r4.json")
    assert receipt["facts"]["search"] == search
    assert "candidate 3" in (project.folder / "artifacts/report.html").read_text(encoding="utf-8")

    code, said, _ = command(project, "status", "--json")
    shown = json.loads(said)
    assert (code, shown["searches"], shown["solved_shapes"]["r4"]) == (0, {"r4": search}, chosen["shape_after"])
    code, said, _ = command(project, "status")
    assert f"r4: candidate {search['chosen']} of 3; KL to the teacher after a short distillation:" in " ".join(said.split())

    report = audit(project.folder, "tiny/4")
    results = {(one["name"], one["subject"]): one["result"] for one in report["checks"]}
    assert {key: result for key, result in results.items() if result != "PASS"} == {}
    assert ("search", "r4") in results
    assert results["mlflow metrics", "r4"] == results["mlflow files", "r4"] == results["pruning", "r4"] == "PASS"

    (place / "trained/search.json").write_text("{}\n", encoding="utf-8")
    assert audit(project.folder, "tiny/4")["result"] == "FAIL"
