"""`compactlm audit` on a real run: what was changed behind its back is found and named, what is honest is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import rederive
from tasks.audit import audit
from tasks.lineage.files import read_json
from tasks.params import read_yaml
from tests.pipeline.conftest import Command
from tests.tampering import changed, in_store, moved_away, one_byte, replaced
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

Attack = Callable[[Path], contextlib.AbstractContextManager[None]]
ROUNDS = "artifacts/rounds"
MLFLOW = ".compactlm/mlflow/artifacts"


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def faults(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (check, subject) of what failed."""
    return [(one["name"], one["subject"]) for one in report["checks"] if one["result"] == "FAIL"]


def file(path: str) -> Attack:
    """One bit of one file, found by a pattern that matches once or more (then the first)."""
    return lambda project: one_byte(sorted(project.glob(path))[0])


def each(path: str) -> Attack:
    """One bit of each file that a pattern matches: which of MLflow's runs is whose does not stand in their names."""

    @contextlib.contextmanager
    def attack(project: Path) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            found = list(project.glob(path))
            assert found
            for one in found:
                stack.enter_context(one_byte(one))
            yield

    return attack


def cached(path: str) -> Attack:
    """One bit of the cache object of an output, or of the listing of an output folder."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        for receipt in (project / "artifacts/receipts").iterdir():
            outputs = read_json(receipt)["outputs"]
            files = {
                f"{out}/{name}": one for out, entry in outputs.items() for name, one in entry.get("files", {}).items()
            }
            found = {**outputs, **files}.get(path)
            if found is not None:
                return one_byte(project / ".dvc/cache/files/md5" / found["md5"][:2] / found["md5"][2:])
        raise AssertionError(f"no stage wrote {path}")

    return attack


def version_model(name: str) -> Attack:
    """One bit of a file of the model that MLflow serves as version 3."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        report = audit(project, "tiny/3")
        weights = [p for p in (project / MLFLOW).rglob("artifacts/model/model.safetensors")
                   if hashlib.sha256(p.read_bytes()).hexdigest() == report["model_sha256"]]  # fmt: skip
        return one_byte(next(iter(weights[0].parents[2].rglob(name))))

    return attack


def locked(stage: str, role: str, path: str) -> Attack:
    """One digit of an md5 in dvc.lock."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        place = project / "dvc.lock"
        entry = next(one for one in read_yaml(place)["stages"][stage][role] if one["path"] == path)
        old = entry["md5"]
        text = place.read_text(encoding="utf-8")
        start = text.index(f"  {stage}:\n")
        new = ("0" if old[0] != "0" else "1") + old[1:]
        here = text.index(old, text.index(f"path: {path}\n", start))
        return changed(place, (text[:here] + new + text[here + len(old) :]).encode())

    return attack


def git_blob(path: str) -> Attack:
    """One bit of what Git holds of a file."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        name = Project(project).shell("git", "rev-parse", f"HEAD:{path}").strip()
        return one_byte(project / ".git/objects" / name[:2] / name[2:])

    return attack


def store(command: str, undo: str) -> Attack:
    """One value in MLflow's database."""
    return lambda project: in_store(project, command, undo)


ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "raw data": (file("artifacts/fetched/data/rows.csv"), "workspace", "artifacts/fetched/data/rows.csv"),
    "data summary": (file("artifacts/validation/summary.json"), "workspace", "artifacts/validation/summary.json"),
    "prepared data": (file("artifacts/data/sets/test.parquet"), "workspace", "artifacts/data/sets/test.parquet"),
    "teacher weights": (
        file(f"{ROUNDS}/teacher/trained/model/model.safetensors"), "workspace", "teacher/trained/model/model.safetensors",
    ),
    "teacher logits": (file("artifacts/teacher_logits/train.npy"), "workspace", "artifacts/teacher_logits/train.npy"),
    "plan": (file(f"{ROUNDS}/r2/pruned/plan.json"), "workspace", f"{ROUNDS}/r2/pruned/plan.json"),
    "checkpoint": (file(f"{ROUNDS}/r1/trained/checkpoints/*/model.safetensors"), "workspace", f"{ROUNDS}/r1/trained/checkpoints"),
    "ONNX": (file(f"{ROUNDS}/r3/exported/model.onnx"), "workspace", f"{ROUNDS}/r3/exported/model.onnx"),
    "predictions": (file(f"{ROUNDS}/r3/evaluated/predictions/test.parquet"), "workspace", "predictions/test.parquet"),
    "metrics": (file(f"{ROUNDS}/r3/evaluated/quality.json"), "workspace", f"{ROUNDS}/r3/evaluated/quality.json"),
    "costs": (file(f"{ROUNDS}/r3/evaluated/cost.json"), "workspace", f"{ROUNDS}/r3/evaluated/cost.json"),
    "verdict": (file(f"{ROUNDS}/r3/verdict.json"), "workspace", f"{ROUNDS}/r3/verdict.json"),
    "receipt": (file("artifacts/receipts/distill@r3.json"), "receipts", "artifacts/receipts/distill@r3.json"),
    "cache object": (
        cached(f"{ROUNDS}/teacher/trained/model/model.safetensors"), "cache", "teacher/trained/model/model.safetensors",
    ),
    "cache listing": (cached(f"{ROUNDS}/r3/trained"), "cache", f"{ROUNDS}/r3/trained"),
    "dvc.lock input": (locked("distill@r2", "deps", "artifacts/teacher_logits"), "dvc.lock", "artifacts/teacher_logits"),
    "dvc.lock output": (locked("teacher", "outs", f"{ROUNDS}/teacher/trained"), "dvc.lock", f"{ROUNDS}/teacher/trained"),
    "dvc.lock code": (locked("prune@r1", "deps", "tasks/models/architectures"), "dvc.lock", "tasks/models/architectures"),
    "dvc.lock receipt": (locked("gate@r3", "outs", "artifacts/receipts/gate@r3.json"), "dvc.lock", "gate@r3"),
    "dvc.lock params": (
        lambda p: replaced(p / "dvc.lock", "labelled_epochs: 30", "labelled_epochs: 31"), "dvc.lock", "params rounds.r2",
    ),
    "params of the workspace": (
        lambda p: replaced(p / "params.yaml", "labelled_epochs: 30", "labelled_epochs: 31"), "time stamps", "params.yaml",
    ),
    "params in Git": (git_blob("params.yaml"), "params", "params.yaml"),
    "code in Git": (git_blob("tasks/pruning/criteria.py"), "code", "tasks/pruning/criteria.py"),
    "code of the workspace": (file("tasks/prune.py"), "time stamps", "tasks/prune.py"),
    "served weights": (version_model("model.safetensors"), "mlflow files", "artifacts/model/model.safetensors"),
    "served code": (version_model("served_model.py"), "mlflow files", "model m-"),
    "recorded evidence": (each(f"{MLFLOW}/*/artifacts/evidence/quality.json"), "mlflow files", "evidence/quality.json"),
    "recorded receipt": (each(f"{MLFLOW}/*/artifacts/receipts/fetch.json"), "merkle root", "run"),
    "alias": (
        store("UPDATE registered_model_aliases SET version = 1 WHERE alias = 'champion'",
              "UPDATE registered_model_aliases SET version = 3 WHERE alias = 'champion'"), "alias", "champion",
    ),
    "recorded metric": (
        store("UPDATE metrics SET value = value + 0.001 WHERE key = 'test/accuracy'",
              "UPDATE metrics SET value = value - 0.001 WHERE key = 'test/accuracy'"), "mlflow metrics", "test/accuracy",
    ),
    "recorded param": (
        store("UPDATE params SET value = '3.0' WHERE key = 'distill.temperature'",
              "UPDATE params SET value = '2.0' WHERE key = 'distill.temperature'"), "mlflow params", "distill.temperature",
    ),
    "tag of the version": (
        store("UPDATE model_version_tags SET value = 'fail' WHERE key = 'compactlm.verdict' AND version = 3",
              "UPDATE model_version_tags SET value = 'pass' WHERE key = 'compactlm.verdict' AND version = 3"),
        "version", "verdict",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_a_change_is_found_and_named(finished: Project, what: str) -> None:
    attack, check, subject = ATTACKS[what]
    with attack(finished.folder):
        report = audit(finished.folder, "tiny/3")
    assert report["result"] == "FAIL"
    assert [one for one in faults(report) if one[0] == check and subject in one[1]], faults(report)


def test_an_honest_run_passes_whole(finished: Project) -> None:
    for number, name in ((1, "r1"), (2, "r2"), (3, "r3")):
        report = audit(finished.folder, f"tiny/{number}")
        assert [one for one in report["checks"] if one["result"] != "PASS"] == []
        assert report["round"] == name
    stages = {one["name"] for one in report["stages"]}
    assert {"fetch", "prepare", "teacher", "teacher_logits", "prune@r1", "distill@r2", "gate@r3"} <= stages
    assert "gate@r1" not in stages  # r3 does not rest on what was judged of r1
    assert ["prune@r3", "distill@r3"] in [list(edge) for edge in report["edges"]]
    assert report["files"] > 100


HONEST: dict[str, Attack] = {
    "the cache was emptied": lambda project: moved_away(project / ".dvc/cache/files"),
    "the workspace was emptied": lambda project: moved_away(project / "artifacts"),
    "the next run is being prepared": lambda project: _edited(project / "params.yaml", "seed: 0", "seed: 1"),
    "another stage's code was edited": lambda project: _edited(project / "tasks/report.py", '"""', '"""Now: '),
    "the report was thrown away": lambda project: moved_away(project / "artifacts/report.html"),
}


@contextlib.contextmanager
def _edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Edit a file as a person does: its time stamp is new."""
    text, backup = path.read_text(encoding="utf-8"), path.with_name(path.name + ".backup")
    shutil.copy2(path, backup)
    try:
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        yield
    finally:
        backup.replace(path)


@pytest.mark.parametrize("history", HONEST)
def test_an_honest_history_raises_no_alarm(finished: Project, history: str) -> None:
    with HONEST[history](finished.folder):
        report = audit(finished.folder, "tiny@champion")
    assert [one for one in report["checks"] if one["result"] != "PASS"] == []


def test_bytes_that_are_nowhere_are_unknown_and_not_passed(finished: Project) -> None:
    path = finished.folder / ROUNDS / "r1/pruned/plan.json"
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    with moved_away(path), moved_away(finished.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]):
        report = audit(finished.folder, None)
    assert report["result"] == "UNKNOWN"
    doubts = {(one["name"], one["subject"]) for one in report["checks"] if one["result"] == "UNKNOWN"}
    assert doubts == {("bytes", "prune@r1"), ("pruning", "r1")}


def test_a_fresh_clone_with_a_pulled_cache_passes(project: Project, finished: Project, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    project.dvc("remote", "add", "-q", "-d", "shelf", str(tmp_path / "shelf"))
    project.dvc("push", "-q")
    project.shell("git", "add", "-A")
    project.shell("git", *who, "commit", "-qm", "results")
    clone = Project(tmp_path / "clone")
    project.shell("git", "clone", "-q", str(project.folder), str(clone.folder))
    clone.dvc("pull", "-q")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder / '.compactlm/mlflow/mlflow.db'}")
    report = audit(clone.folder, "tiny@champion")
    assert [one for one in report["checks"] if one["result"] != "PASS"] == []


@pytest.mark.slow
def test_a_run_after_a_change_leaves_the_earlier_model_whole(project: Project) -> None:
    project.run("--set", "rounds.r3.learning_rate=4.0e-3")
    assert [one for one in audit(project.folder, "tiny/3")["checks"] if one["result"] != "PASS"] == []
    assert [one for one in audit(project.folder, "tiny/4")["checks"] if one["result"] != "PASS"] == []
    assert json.loads(project.compactlm("run", "--json").stdout)["state"] == "no change"
    assert audit(project.folder, "tiny/4")["result"] == "PASS"


@pytest.fixture
def view(finished: Project, tmp_path: Path) -> Path:
    """A copy of the run's files that a forger may change: no digest will tell on him here."""
    shutil.copytree(finished.folder / "artifacts", tmp_path / "artifacts")
    return tmp_path


def test_weights_that_do_not_follow_from_the_plan_are_found(view: Path) -> None:
    assert rederive.pruned(view, "r2", "r1") == []
    with one_byte(view / ROUNDS / "r2/pruned/model/model.safetensors"):
        assert [one.subject for one in rederive.pruned(view, "r2", "r1")] == [
            f"{ROUNDS}/r2/pruned/model/model.safetensors"
        ]


def test_numbers_that_do_not_follow_from_the_predictions_are_found(view: Path) -> None:
    params = read_json(view / "artifacts/receipts/evaluate@r3.json")["params"]
    folder = f"{ROUNDS}/r3/evaluated"
    assert rederive.measured(view, params, folder, "r3") == []
    quality = read_json(view / folder / "quality.json")
    quality["sets"]["test"]["slices"]["overall"]["accuracy"]["low"] += 0.01
    (view / folder / "quality.json").write_text(json.dumps(quality), encoding="utf-8")
    assert [one.subject for one in rederive.measured(view, params, folder, "r3")] == [
        "r3: test: overall: accuracy: low"
    ]


def test_a_verdict_that_the_rules_do_not_give_is_found(view: Path) -> None:
    receipt = read_json(view / "artifacts/receipts/gate@r3.json")
    assert rederive.judged(view, receipt) == []
    verdict = read_json(view / ROUNDS / "r3/verdict.json")
    verdict["rules"][0]["value"] = 0.5
    (view / ROUNDS / "r3/verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    assert [one.subject for one in rederive.judged(view, receipt)] == ["gate@r3: rule 1"]


def test_a_checkpoint_that_is_not_the_best_is_found(view: Path) -> None:
    assert rederive.best_checkpoint(view, "r2") == []
    folder = view / ROUNDS / "r2/trained"
    best = read_json(folder / "summary.json")["best_checkpoint"]
    other = next(p for p in sorted((folder / "checkpoints").iterdir()) if p.name != best)
    shutil.copyfile(other / "model.safetensors", folder / "model/model.safetensors")
    assert {one.subject for one in rederive.best_checkpoint(view, "r2")} == {"r2: model_sha256", "r2: best"}


def test_the_command_says_what_it_found(finished: Project, tmp_path: Path, command: Command) -> None:
    page = tmp_path / "audit.html"
    code, said, _ = command(finished, "audit", "tiny@champion", "--json", "--html", str(page))
    assert code == 0
    assert json.loads(said)["result"] == "PASS"
    text = page.read_text(encoding="utf-8")
    assert "every check passes" in text
    assert text.count("<rect") == len(json.loads(said)["stages"])
    assert "http" not in text  # it asks for nothing else
    with one_byte(finished.folder / ROUNDS / "r3/exported/model.onnx"):
        code, said, _ = command(finished, "audit", "tiny/3")
    assert code == 1
    assert f"FAIL {ROUNDS}/r3/exported/model.onnx: the file is not what export@r3 wrote" in said
    code, _, errors = command(finished, "audit", "tiny/9")
    assert code == 2
    assert "tiny: there is no such version; registered: @challenger, @champion, /1, /2, /3" in errors
