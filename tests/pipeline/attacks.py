"""What an attacker may change in a finished run, each time one byte or one value, and how the audit must name it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.files import read_json
from tasks.params.file import read_yaml
from tasks.registry.downloads import LOADED_AS
from tests.tampering import STORE, changed, in_store, one_byte, other_ref, replaced
from tests.tiny_project import Project

Attack = Callable[[Path], contextlib.AbstractContextManager[None]]
ROUNDS = "artifacts/rounds"
MLFLOW = ".compactlm/mlflow/artifacts"


def file(path: str) -> Attack:
    """One bit of one file, found by a pattern that matches once or more (then the first)."""
    return lambda project: one_byte(sorted(project.glob(path))[0])


def recorded(run: str, path: str) -> Attack:
    """One bit of a file that MLflow keeps with the run of a name."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        with contextlib.closing(sqlite3.connect(project / STORE)) as connection:
            rows = connection.execute("SELECT run_uuid FROM runs WHERE name LIKE ?", (run,)).fetchall()
        return one_byte(project / MLFLOW / rows[-1][0] / "artifacts" / path)

    return attack


def cached(path: str) -> Attack:
    """One bit of the cache object of an output, or of the listing of an output folder."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        for receipt in sorted((project / "artifacts/receipts").iterdir()):
            outputs = read_json(receipt)["outputs"]
            files = {f"{out}/{name}": file for out, entry in outputs.items() for name, file in entry.get("files", {}).items()}
            output = {**outputs, **files}.get(path)
            if output is not None:
                return one_byte(project / ".dvc/cache/files/md5" / output["md5"][:2] / output["md5"][2:])
        raise AssertionError(f"no stage wrote {path}")

    return attack


def cached_receipt(stage: str) -> Attack:
    """One bit of the cache object of a receipt."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        content = (project / f"artifacts/receipts/{stage}.json").read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return one_byte(project / ".dvc/cache/files/md5" / md5[:2] / md5[2:])

    return attack


def _other_root(record: bytes) -> bytes:
    """Return the record of a run with one other digit in the Merkle root of its receipts."""
    place = record.index(b'"receipts_root": "') + len(b'"receipts_root": "')
    digit = b"0" if record[place : place + 1] != b"0" else b"1"
    return record[:place] + digit + record[place + 1 :]


def version_model(name: str) -> Attack:
    """One bit of a file of the model that MLflow serves as version 3."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        with contextlib.closing(sqlite3.connect(project / STORE)) as connection:
            [(source,)] = connection.execute("SELECT source FROM model_versions WHERE version = 3").fetchall()
        folder = next((project / MLFLOW).rglob(source.rpartition("/")[2]))
        return one_byte(next(folder.rglob(name)))

    return attack


def model_of(name: str, path: str) -> Attack:
    """One bit of a file of the model that MLflow keeps of a round."""
    return lambda project: one_byte(_model_folder(project, name) / path)


def added(where: Callable[[Path], Path], content: str) -> Attack:
    """A file that nobody of the project has written."""

    @contextlib.contextmanager
    def attack(project: Path) -> Iterator[None]:
        place = where(project)
        assert not place.exists()
        place.write_text(content, encoding="utf-8")
        try:
            yield
        finally:
            place.unlink()

    return attack


def _model_folder(project: Path, name: str) -> Path:
    with contextlib.closing(sqlite3.connect(project / STORE)) as connection:
        [(model,)] = connection.execute("SELECT model_id FROM logged_models WHERE name = ?", (name,)).fetchall()
    return project / MLFLOW / "models" / model / "artifacts"


def locked(stage: str, role: str, path: str) -> Attack:
    """One digit of an md5 in dvc.lock."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        place = project / "dvc.lock"
        entry = next(dep for dep in read_yaml(place)["stages"][stage][role] if dep["path"] == path)
        old = entry["md5"]
        text = place.read_text(encoding="utf-8")
        start = text.index(f"  {stage}:\n")
        new = ("0" if old[0] != "0" else "1") + old[1:]
        here = text.index(old, text.index(f"path: {path}\n", start))
        return changed(place, (text[:here] + new + text[here + len(old) :]).encode())

    return attack


def git_object(what: str) -> Attack:
    """One bit of an object of Git: a commit, a file of it, or what a ref points at."""

    def attack(project: Path) -> contextlib.AbstractContextManager[None]:
        name = Project(project).shell("git", "rev-parse", what).strip()
        return one_byte(project / ".git/objects" / name[:2] / name[2:])

    return attack


def store(command: str, undo: str) -> Attack:
    """One value in MLflow's database."""
    return lambda project: in_store(project, command, undo)


ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "raw data": (file("artifacts/fetched/data/rows.csv"), "workspace", "artifacts/fetched/data/rows.csv"),
    "fetched teacher": (
        file("artifacts/fetched/teacher/model.safetensors"),
        "workspace",
        "artifacts/fetched/teacher/model.safetensors",
    ),
    "data summary": (file("artifacts/validation/summary.json"), "workspace", "artifacts/validation/summary.json"),
    "prepared data": (file("artifacts/data/sets/test.parquet"), "workspace", "artifacts/data/sets/test.parquet"),
    "teacher weights": (
        file(f"{ROUNDS}/teacher/trained/model/model.safetensors"),
        "workspace",
        "teacher/trained/model/model.safetensors",
    ),
    "teacher logits": (file("artifacts/teacher_logits/train.npy"), "workspace", "artifacts/teacher_logits/train.npy"),
    "plan": (file(f"{ROUNDS}/r2/pruned/plan.json"), "workspace", f"{ROUNDS}/r2/pruned/plan.json"),
    "scores": (file(f"{ROUNDS}/r1/pruned/scores.safetensors"), "workspace", f"{ROUNDS}/r1/pruned/scores.safetensors"),
    "pruned weights": (
        file(f"{ROUNDS}/r2/pruned/model/model.safetensors"),
        "workspace",
        f"{ROUNDS}/r2/pruned/model/model.safetensors",
    ),
    "tokens": (file(f"{ROUNDS}/r2/tokens/train.ids.npy"), "workspace", f"{ROUNDS}/r2/tokens/train.ids.npy"),
    "predictions of a rival": (
        file("artifacts/baselines/predictions/tfidf_logistic/test.parquet"),
        "workspace",
        "tfidf_logistic/test.parquet",
    ),
    "checkpoint": (file(f"{ROUNDS}/r1/trained/checkpoints/*/model.safetensors"), "workspace", f"{ROUNDS}/r1/trained/checkpoints"),
    "ONNX": (file(f"{ROUNDS}/r3/exported/model.onnx"), "workspace", f"{ROUNDS}/r3/exported/model.onnx"),
    "predictions": (file(f"{ROUNDS}/r3/evaluated/predictions/test.parquet"), "workspace", "predictions/test.parquet"),
    "metrics": (file(f"{ROUNDS}/r3/evaluated/quality.json"), "workspace", f"{ROUNDS}/r3/evaluated/quality.json"),
    "costs": (file(f"{ROUNDS}/r3/evaluated/cost.json"), "workspace", f"{ROUNDS}/r3/evaluated/cost.json"),
    "verdict": (file(f"{ROUNDS}/r3/verdict.json"), "workspace", f"{ROUNDS}/r3/verdict.json"),
    "cache object": (
        cached(f"{ROUNDS}/teacher/trained/model/model.safetensors"),
        "cache",
        "teacher/trained/model/model.safetensors",
    ),
    "cached plan": (cached(f"{ROUNDS}/r2/pruned/plan.json"), "cache", f"{ROUNDS}/r2/pruned/plan.json"),
    "cached checkpoint": (
        cached(f"{ROUNDS}/r1/trained/model/model.safetensors"),
        "cache",
        f"{ROUNDS}/r1/trained/model/model.safetensors",
    ),
    "cached receipt": (cached_receipt("teacher"), "cache", "artifacts/receipts/teacher.json"),
    "cache listing": (cached(f"{ROUNDS}/r3/trained"), "cache", f"{ROUNDS}/r3/trained"),
    "label map of a head": (
        lambda p: replaced(p / f"{ROUNDS}/r3/trained/model/config.json", '"negative": 0', '"negative": 1'),
        "workspace",
        f"{ROUNDS}/r3/trained/model/config.json",
    ),
    "label map of a teacher": (
        lambda p: replaced(p / f"{ROUNDS}/teacher/trained/model/config.json", '"0": "negative"', '"0": "positive"'),
        "workspace",
        f"{ROUNDS}/teacher/trained/model/config.json",
    ),
    "tokenizer": (file(f"{ROUNDS}/r1/trained/model/tokenizer.json"), "workspace", f"{ROUNDS}/r1/trained/model/tokenizer.json"),
    "training curve": (file(f"{ROUNDS}/r2/trained/steps.jsonl"), "workspace", f"{ROUNDS}/r2/trained/steps.jsonl"),
    "summary of a training": (file(f"{ROUNDS}/r3/trained/summary.json"), "workspace", f"{ROUNDS}/r3/trained/summary.json"),
    "parity": (file(f"{ROUNDS}/r3/exported/parity.json"), "workspace", f"{ROUNDS}/r3/exported/parity.json"),
    "transfer set": (file("artifacts/data/sets/transfer.parquet"), "workspace", "artifacts/data/sets/transfer.parquet"),
    "calibration set": (file("artifacts/data/sets/calibration.parquet"), "workspace", "artifacts/data/sets/calibration.parquet"),
    "file among the outputs": (
        added(lambda p: p / f"{ROUNDS}/r3/trained/model/adapter.json", "{}"),
        "workspace",
        f"{ROUNDS}/r3/trained/model/adapter.json",
    ),
    "cached ONNX": (cached(f"{ROUNDS}/r3/exported/model.onnx"), "cache", f"{ROUNDS}/r3/exported/model.onnx"),
    "cached predictions": (
        cached(f"{ROUNDS}/r3/evaluated/predictions/test.parquet"),
        "cache",
        f"{ROUNDS}/r3/evaluated/predictions/test.parquet",
    ),
    "cached data": (cached("artifacts/data/sets/train.parquet"), "cache", "artifacts/data/sets/train.parquet"),
    # After those in the cache, which are found by the receipts: with one bit changed a receipt may be no JSON any more.
    "receipt": (file("artifacts/receipts/distill@r3.json"), "receipts", "artifacts/receipts/distill@r3.json"),
    "dvc.lock input": (locked("distill@r2", "deps", "artifacts/teacher_logits"), "dvc.lock", "artifacts/teacher_logits"),
    "dvc.lock output": (locked("teacher", "outs", f"{ROUNDS}/teacher/trained"), "dvc.lock", f"{ROUNDS}/teacher/trained"),
    "dvc.lock code": (locked("prune@r1", "deps", "tasks/models"), "dvc.lock", "tasks/models"),
    "dvc.lock sets": (locked("evaluate@r3", "deps", "artifacts/data/sets"), "dvc.lock", "artifacts/data/sets"),
    "dvc.lock code of the measures": (locked("evaluate@r3", "deps", "tasks/measuring"), "dvc.lock", "tasks/measuring"),
    "dvc.lock receipt": (locked("gate@r3", "outs", "artifacts/receipts/gate@r3.json"), "dvc.lock", "gate@r3"),
    "dvc.lock params": (
        lambda p: replaced(p / "dvc.lock", "labelled_epochs: 30", "labelled_epochs: 31"),
        "dvc.lock",
        "params rounds.r2",
    ),
    "params of the workspace": (
        lambda p: replaced(p / "params.yaml", "labelled_epochs: 30", "labelled_epochs: 31"),
        "time stamps",
        "params.yaml",
    ),
    "params in Git": (git_object("HEAD:params.yaml"), "params", "params.yaml"),
    "code in Git": (git_object("HEAD:tasks/pruning/criteria.py"), "code", "tasks/pruning/criteria.py"),
    "rules in Git": (git_object("HEAD:tasks/gates/judge.py"), "code", "tasks/gates/judge.py"),
    "pipeline in Git": (git_object("HEAD:dvc.yaml"), "code", "dvc.yaml"),
    "commit": (git_object("HEAD"), "commit", ""),
    "folder in Git": (git_object("HEAD:tasks"), "commit", ""),
    "sources.lock": (file("sources.lock"), "sources.lock", "sources.lock"),
    "code of the workspace": (file("tasks/stages/prune.py"), "time stamps", "tasks/stages/prune.py"),
    "served weights": (version_model("model.safetensors"), "mlflow files", "artifacts/model/model.safetensors"),
    "served code": (version_model("served_model.py"), "mlflow files", "model m-"),
    "served ONNX": (version_model("model.onnx"), "mlflow files", "artifacts/model.onnx"),
    "served tokenizer": (version_model("tokenizer.json"), "mlflow files", "artifacts/model/tokenizer.json"),
    "served requirements": (model_of("r1", "requirements.txt"), "mlflow files", "r1: model m-"),
    "served entry": (model_of("r0", "MLmodel"), "mlflow files", "teacher: model m-"),
    "served label map": (
        lambda p: replaced(_model_folder(p, "r2") / "artifacts/model/config.json", '"negative": 0', '"negative": 1'),
        "mlflow files",
        "artifacts/model/config.json",
    ),
    "note of MLflow that names another version": (
        added(lambda p: _model_folder(p, "r2") / LOADED_AS, "model_name: tiny\nmodel_version: '3'\n"),
        "mlflow files",
        "r2: model m-",
    ),
    "file among those served": (
        added(lambda p: _model_folder(p, "r3") / "artifacts/model/adapter.json", "{}"),
        "mlflow files",
        "artifacts/model/adapter.json",
    ),
    "recorded costs": (recorded("r1", "evidence/cost.json"), "mlflow files", "r1: evidence/cost.json"),
    "recorded summary of the teacher": (
        recorded("r0", "evidence/summary.json"),
        "mlflow files",
        "teacher: evidence/summary.json",
    ),
    "recorded evidence": (recorded("r3", "evidence/quality.json"), "mlflow files", "r3: evidence/quality.json"),
    "recorded verdict": (recorded("r3", "evidence/verdict.json"), "mlflow files", "r3: evidence/verdict.json"),
    "recorded plan": (recorded("r2", "evidence/plan.json"), "mlflow files", "r2: evidence/plan.json"),
    "recorded predictions": (recorded("r3", "predictions/test.parquet"), "mlflow files", "r3: predictions/test.parquet"),
    "recorded predictions of the teacher": (
        recorded("r0", "predictions/test.parquet"),
        "mlflow files",
        "teacher: predictions/test.parquet",
    ),
    "recorded receipt": (recorded("compress%", "receipts/fetch.json"), "merkle root", "run"),
    "recorded receipt of a round": (recorded("r3", "receipts/gate@r3.json"), "receipts", "gate@r3"),
    "line of decisions": (file("decisions.jsonl"), "decision log", "decisions.jsonl"),
    "end of the last line of decisions": (
        lambda p: changed(p / "decisions.jsonl", (p / "decisions.jsonl").read_bytes()[:-1] + b" "),
        "decision log",
        "decisions.jsonl",
    ),
    "decision in Git": (git_object("refs/compactlm/decisions/00000001"), "decision log", "refs/compactlm/decisions"),
    "decision ref": (
        lambda p: other_ref(p, "refs/compactlm/decisions/00000001", lambda old: old.replace(b'"first"', b'"fir5t"', 1)),
        "decision log",
        "refs/compactlm/decisions",
    ),
    "run in Git": (git_object("refs/compactlm/runs/00000001"), "run record", "refs/compactlm/runs"),
    "run ref": (
        lambda p: other_ref(p, "refs/compactlm/runs/00000001", lambda old: _other_root(old)),
        "run record",
        "refs/compactlm/runs",
    ),
    "alias": (
        store(
            "UPDATE registered_model_aliases SET version = 1 WHERE alias = 'champion'",
            "UPDATE registered_model_aliases SET version = 3 WHERE alias = 'champion'",
        ),
        "alias",
        "champion",
    ),
    "another alias": (
        store(
            "UPDATE registered_model_aliases SET version = 2 WHERE alias = 'challenger'",
            "UPDATE registered_model_aliases SET version = 3 WHERE alias = 'challenger'",
        ),
        "alias",
        "challenger",
    ),
    "weights of a version": (
        store(
            "UPDATE model_version_tags SET value = 'x' || value WHERE key = 'compactlm.model_sha256' AND version = 2",
            "UPDATE model_version_tags SET value = substr(value, 2) WHERE key = 'compactlm.model_sha256' AND version = 2",
        ),
        "run record",
        "tiny/2",
    ),
    "root of the receipts": (
        store(
            "UPDATE tags SET value = 'x' || value WHERE key = 'compactlm.receipts_root'",
            "UPDATE tags SET value = substr(value, 2) WHERE key = 'compactlm.receipts_root'",
        ),
        "merkle root",
        "run",
    ),
    "recorded metric": (
        store(
            "UPDATE metrics SET value = -value WHERE key = 'test/accuracy'",
            "UPDATE metrics SET value = -value WHERE key = 'test/accuracy'",
        ),
        "mlflow metrics",
        "test/accuracy",
    ),
    "second value of a metric": (
        store(
            "INSERT INTO metrics SELECT key, 0.99, timestamp + 1, run_uuid, 1, 0 FROM metrics WHERE key = 'cost/params_total'",
            "DELETE FROM metrics WHERE key = 'cost/params_total' AND step = 1",
        ),
        "mlflow metrics",
        "cost/params_total",
    ),
    "recorded seed": (
        store(
            "UPDATE params SET value = '1' || value WHERE key = 'seed'",
            "UPDATE params SET value = substr(value, 2) WHERE key = 'seed'",
        ),
        "mlflow params",
        "seed",
    ),
    "ONNX of the version": (
        store(
            "UPDATE model_version_tags SET value = 'x' || value WHERE key = 'compactlm.onnx_sha256' AND version = 3",
            "UPDATE model_version_tags SET value = substr(value, 2) WHERE key = 'compactlm.onnx_sha256' AND version = 3",
        ),
        "version",
        "onnx_sha256",
    ),
    "size of the version": (
        store(
            "UPDATE model_version_tags SET value = '1' || value WHERE key = 'compactlm.params_total' AND version = 3",
            "UPDATE model_version_tags SET value = substr(value, 2) WHERE key = 'compactlm.params_total' AND version = 3",
        ),
        "version",
        "params_total",
    ),
    "recorded param": (
        store(
            "UPDATE params SET value = '3.0' WHERE key = 'distill.temperature'",
            "UPDATE params SET value = '2.0' WHERE key = 'distill.temperature'",
        ),
        "mlflow params",
        "distill.temperature",
    ),
    "tag of the version": (
        store(
            "UPDATE model_version_tags SET value = 'fail' WHERE key = 'compactlm.verdict' AND version = 3",
            "UPDATE model_version_tags SET value = 'pass' WHERE key = 'compactlm.verdict' AND version = 3",
        ),
        "version",
        "verdict",
    ),
}

IN_MLFLOW = ("alias", "merkle root", "mlflow files", "mlflow metrics", "mlflow params", "run record", "version")


def batches() -> dict[str, list[str]]:
    """Return the attacks in groups of which no one hides another, by the name of the group."""
    groups: dict[str, list[str]] = {}
    for name, (_, check, subject) in ATTACKS.items():
        hides = check in ("commit", "decision log") or subject.startswith("refs/")
        in_store = check in IN_MLFLOW or name.startswith("recorded")
        group = name if hides else "Git" if name.endswith("in Git") else "MLflow" if in_store else "files"
        groups.setdefault(group, []).append(name)
    return groups
