"""Copies of this repository with a run small enough to watch: a tiny teacher, a few hundred sentences, three rounds."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.cli.ending import EXIT_NOTHING_PASSED
from tasks.files import digest, file_sha256, read_json
from tasks.params.file import apply_overrides

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("flows", "tasks", "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore")
FILLERS = [f"{a}{b}" for a in "cdfglmnprst" for b in ("a", "e", "i", "o", "un", "ar", "el")]
TABLES = ("runs", "params", "metrics", "tags", "logged_models", "model_versions", "registered_model_aliases")
OPINIONS = (["bad", "dull", "slow"], ["good", "great", "fine"])
SMALL = [
    "data.task_sources=[home]",
    "data.transfer={sources: [away], min_words: 3, max_words: 12, rows: 120, spliced_rows: 30}",
    "data.evaluation_sets={abroad: {sources: [away], rows: 40}}",
    "data.typos={of: abroad, word_share: 0.3}",
    "data.stress={sets: {chat: {about: lines of chat, source: 'path:CHAT', pattern: '^- (.+)$', rows: 24}}, "
    "changed: {of: abroad, rows: 12, kinds: [handles, emails]}}",
    "data.calibration_rows=40",
    "data.max_tokens=32",
    "validate_data.min_rows_per_class=20",
    "teacher.epochs=2",
    "teacher.frozen_layers=null",
    "teacher.learning_rate=5.0e-3",
    "teacher.batch_rows=16",
    "distill.batch_rows=16",
    "distill.checkpoints=3",
    "rounds.r1={parent: teacher, vocabulary: 75, hidden: 24, heads: 3, ffn: 40, layers: 3, "
    "labelled_epochs: 1, transfer_epochs: 0.5, learning_rate: 5.0e-3}",
    # long enough to be killed in its middle
    "rounds.r2={parent: r1, vocabulary: 74, hidden: 16, heads: 2, ffn: 32, layers: 2, "
    "labelled_epochs: 30, transfer_epochs: 2.0, learning_rate: 1.0e-3}",
    "rounds.r3={parent: r2, vocabulary: 72, hidden: 8, heads: 1, ffn: 24, layers: 2, "
    "labelled_epochs: 1, transfer_epochs: 1.0, learning_rate: 5.0e-3}",
    "evaluate.bootstrap_resamples=50",
    "evaluate.latency_batches=[1, 2]",
    "evaluate.latency_tokens=8",
    "evaluate.latency_repeats=3",
    "gates=[{metric: params_total, versus: teacher, max_ratio: 0.99}, {metric: onnx_max_difference, max: 1.0e-3}, "
    "{metric: golden_max_difference, max: 1.0e-3}, {check: data_validated}, {check: no_overlap}, "
    "{metric: accuracy, set: abroad_typos, versus: parent, max_drop: 1.0}, "
    "{metric: agreement, set: 'stress_*', min: 0.0, confidence: 0.95, min_support: 20}, "
    "{metric: response_gap, set: changed_abroad, slices: 'change:*', max: 99.0, min_support: 10}]",
    "promotion.gates=[{metric: accuracy, set: test, versus: champion, max_drop: 0.04, test: paired_bootstrap, "
    "confidence: 0.95, min_support: 200}, {check: lineage}, {check: clean_git, severity: warn}]",
    "prune.vocabulary_prior=null",
    "registry.model_name=tiny",
    "runtime.device=cpu",
    "runtime.threads=1",
]


def labelled_rows() -> list[dict[str, Any]]:
    """Return rows whose label follows from their words: sentences from home, reviews of three sentences from away."""
    rng = random.Random(0)
    found = []
    for number in range(420):
        label, home = number % 2, number < 300
        words = [[rng.choice(OPINIONS[label]), *rng.sample(FILLERS, 6)] for _ in range(1 if home else 3)]
        text = " ".join(" ".join(sentence).capitalize() + "." for sentence in words)
        found.append({"text": text, "label": label, "source": "home" if home else "away"})
    return found


def write_chat(path: Path) -> None:
    """Write lines of chat in the words of the rows: texts of another source, without labels."""
    rng = random.Random(1)
    lines = [f"- {rng.choice(OPINIONS[i % 2])} {' '.join(rng.sample(FILLERS, 4))}, {rng.choice(FILLERS)}" for i in range(40)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Project:
    """A copy of the repository, with the command line that works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def copy(self, folder: Path) -> Project:
        """Return a copy of the whole workspace, its cache and records included; nothing leads back to this one."""
        return Project(Path(shutil.copytree(self.folder, folder, symlinks=True)))

    def set(self, *overrides: str) -> None:
        """Edit params.yaml as a person would."""
        path = self.folder / "params.yaml"
        path.write_text(apply_overrides(path.read_text(encoding="utf-8"), list(overrides), path.name), encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `compactlm ARGUMENTS`, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", "from tasks.cli.app import main; main()", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def compactlm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `compactlm ARGUMENTS` to its end."""
        child = self.start(*arguments)
        out, err = child.communicate()
        return subprocess.CompletedProcess(["compactlm", *arguments], child.returncode, out, err)

    def run(self, *arguments: str) -> dict[str, str]:
        """Return how `compactlm run` brought each stage up to date; it must succeed, whatever its gates say."""
        done = self.compactlm("run", "--json", *arguments)
        assert done.returncode in (0, EXIT_NOTHING_PASSED), done.stderr
        return {row["name"]: row["state"] for row in json.loads(done.stdout)["stages"]}

    def states(self) -> dict[str, str]:
        """Return how the last run with work to do brought each stage up to date."""
        return {row["name"]: row["state"] for row in read_json(self.folder / ".compactlm/last_run.json")["stages"]}

    def shell(self, *command: str) -> str:
        """Return what a command prints; it must succeed."""
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        """Return what `dvc ARGUMENTS` prints; it must succeed."""
        return self.shell(sys.executable, "-m", "dvc", *arguments)

    def facts(self) -> dict[str, str]:
        """Return the digests of what a run leaves, and how much the MLflow store holds."""
        names = ("params.yaml", "sources.lock", "dvc.lock", ".compactlm/last_run.json")
        found = {name: file_sha256(self.folder / name) for name in names if (self.folder / name).exists()}
        if (self.folder / "artifacts").exists():
            files = digest(self.folder / "artifacts")["files"]
            found |= {f"artifacts/{name}": entry["sha256"] for name, entry in files.items()}
        store = self.folder / ".compactlm" / "mlflow" / "mlflow.db"
        if store.exists():
            with contextlib.closing(sqlite3.connect(store)) as connection:
                for table in TABLES:
                    found[table] = str(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
        return found


def environment() -> dict[str, str]:
    """Return an environment without the settings of whoever runs the tests."""
    others = ("MLFLOW_", "PREFECT_", "COMPACTLM_", "DVC_", "PYTEST_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    # dvc.yaml says `python`: `compactlm run` finds it by itself, `dvc repro` by an activated environment
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}


def make_project(folder: Path, teacher: Path) -> Project:
    """Return a committed copy of the repository below `folder`, its run made tiny, in which nothing has run."""
    project = Project(folder / "project")
    project.folder.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, project.folder / name)
    shutil.copytree(teacher, folder / "teacher")
    write_rows(folder / "rows.csv", labelled_rows())
    write_chat(folder / "chat.md")
    small = [each.replace("CHAT", str(folder / "chat.md")) for each in SMALL]
    project.set(f"data.source=path:{folder / 'rows.csv'}", f"teacher.model=path:{folder / 'teacher'}", *small)
    project.shell("git", "init", "-q", "-b", "main")
    project.dvc("init", "-q")
    shutil.copyfile(ROOT / ".dvcignore", project.folder / ".dvcignore")
    project.shell("git", "add", "-A")
    project.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
    return project
