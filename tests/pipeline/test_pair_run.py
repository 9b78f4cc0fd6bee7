"""Pairs of texts by the real command line: a run, its audit and replay, the server's answers, and the folder that leaves."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tasks.files import read_json
from tests.paired import LABELS, PRUNED, write_pairs
from tests.tiny_project import Project, make_project

pytestmark = [
    pytest.mark.slow,  # quick: integration/test_pairs
    pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning"),
]
COLUMNS = "{text: a, text_pair: b, label: label, source: source, split: null, group: album}"
CHANGES = [
    f"data.columns={COLUMNS}",
    f"data.labels={json.dumps(LABELS)}".replace('"0"', "0").replace('"1"', "1"),
    "data.splits={validation: 0.15, test: 0.4}",
    "data.transfer={sources: [away], min_words: 2, max_words: 40, rows: 8, spliced_rows: 60}",
    "data.evaluation_sets={abroad: {sources: [away], rows: 10}}",
    "data.typos={of: test, word_share: 0.3}",
    "data.stress=null",
    "data.calibration_rows=24",
    "data.max_tokens=40",
    "validate_data.max_conflicting_share=0.05",
    "validate_data.max_duplicate_share=0.2",
    f"rounds={{r1: {{parent: teacher, {', '.join(f'{axis}: {size}' for axis, size in PRUNED.items())}, "
    "labelled_epochs: 2, transfer_epochs: 1.0, learning_rate: 5.0e-3}}",
    "gates=[{metric: params_total, versus: teacher, max_ratio: 0.99}, {metric: onnx_max_difference, max: 1.0e-3}, "
    "{metric: golden_max_difference, max: 1.0e-3}, {check: data_validated}, {check: no_overlap}, "
    "{metric: order_sensitivity, set: test, max: 1.0}, "
    "{metric: accuracy, set: test, versus: teacher, max_drop: 0.9, test: paired_bootstrap, confidence: 0.9, min_support: 20, "
    "severity: warn}, {metric: accuracy, set: test, versus: second_text_alone, min_gain: -1.0}]",
    "promotion.gates=[{check: lineage}, {check: golden}, {check: serves}]",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A project of pairs after its first run."""
    folder = tmp_path_factory.mktemp("pairs")
    project = make_project(folder, tiny_model)
    write_pairs(folder / "rows.csv", firsts=240)
    project.set(*CHANGES)
    project.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "pairs")
    assert set(project.run().values()) == {"executed"}
    return project


def test_the_first_champion_has_given_its_answers_from_a_server(done: Project) -> None:
    models = json.loads(done.compactlm("models", "--json").stdout)
    assert [(one["round"], one["aliases"]) for one in models] == [("r1", ["challenger", "champion"])]
    verdict = read_json(done.folder / "artifacts/rounds/r1/verdict.json")
    assert verdict["verdict"] == "pass"
    assert "groups" in next(rule["sentence"] for rule in verdict["rules"] if rule.get("test") == "paired_bootstrap")
    page = (done.folder / "artifacts/report.html").read_text(encoding="utf-8")
    assert "As pairs" in page
    assert "the same of the second text alone" in page


def test_a_second_run_has_nothing_to_do_and_the_audit_finds_nothing(done: Project) -> None:
    assert json.loads(done.compactlm("run", "--json").stdout)["state"] == "no change"
    told = done.compactlm("audit", "tiny@champion", "--json")
    report = json.loads(told.stdout)
    assert report["counts"]["FAIL"] == 0, [check for check in report["checks"] if check["result"] == "FAIL"]
    assert {check["result"] for check in report["checks"] if check["name"] == "metrics"} <= {"PASS"}


def test_a_stage_replayed_gives_the_same_bytes(done: Project) -> None:
    told = done.compactlm("audit", "tiny@champion", "--replay", "--stages", "evaluate@r1,export@r1", "--json")
    found = [check for check in json.loads(told.stdout)["checks"] if check["name"] == "replay"]
    assert found
    assert {check["result"] for check in found} == {"PASS"}, found


def test_the_exported_folder_shows_how_a_pair_is_asked(
    done: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = done.compactlm("export", "tiny@champion", "--out", str(tmp_path / "out"))
    assert told.returncode == 0, told.stderr
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "Sorts a pair of texts into against or for" in card
    assert "compactlm predict" not in card  # which takes no pairs
    monkeypatch.chdir(tmp_path / "out")
    blocks = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    capsys.readouterr()
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    first, second = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    answer = first[0] if isinstance(first, list) else first
    assert answer["label"] == max(second, key=second.__getitem__)
    assert answer["score"] == pytest.approx(max(second.values()), abs=1e-5)
