"""A small pipeline under real Git and real DVC whose stages write the files of docs/artifacts.md without training."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.files import read_json, write_json
from tasks.params.file import apply_overrides
from tasks.running.dvc import StageRunner, read_graph
from tests.once import made_once

Outside = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
STAGES_FILES = (Path(__file__).with_name("small_stages.py"), ROOT / "tests/quality_builder.py")


def shell(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Outside:
    """Run `compactlm ARGUMENTS` outside of any project: exit code, standard output and standard error."""
    from tasks.cli.app import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["compactlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(leave.value.code or 0), said.out, said.err

    return run


def publish_in(folder: Path, built_template: Path, store_template: Path) -> Path:
    """Return a project below `folder`: the one that is built, recorded in a store of its own, with a first champion."""
    from tasks.promotion.first_champion import settle_champion
    from tasks.registry.live import publish

    project = Path(shutil.copytree(built_template, folder / "project", symlinks=True))
    (project / ".compactlm/mlflow").mkdir(parents=True)
    shutil.copyfile(store_template, project / ".compactlm/mlflow/mlflow.db")
    publish(project, settle_champion)
    return project


@pytest.fixture(scope="session")
def seed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a stock two-class BERT of a few thousand weights and a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("seed") / "model"
    words = ["[PAD]", "[UNK]", "a", "fine", "film", "dull"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sets, and a teacher with its tokens of each family; see `write_families`."""
    from tests.integration.tiny_run import write_families

    folder = tmp_path_factory.mktemp("families")
    write_families(folder)
    return folder


@pytest.fixture(scope="session")
def fresh_template(tmp_path_factory: pytest.TempPathFactory, seed_model: Path) -> Path:
    """Return a committed project in which no stage has run."""
    folder = tmp_path_factory.mktemp("fresh") / "project"
    (folder / "tasks").mkdir(parents=True)
    for file in STAGES_FILES:
        shutil.copy(file, folder / "tasks")
    shutil.copytree(seed_model, folder / "seed_model")
    # These stages leave no receipts from which a promotion could be judged.
    text = apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), ["promotion.gates=[]"], "params.yaml")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    (folder / "sources.lock").write_text("{}\n", encoding="utf-8")
    (folder / ".gitignore").write_text("/artifacts/\n/.compactlm/\n__pycache__/\n", encoding="utf-8")
    (folder / "dvc.yaml").write_text(dvc_yaml(), encoding="utf-8")
    shell(folder, "git", "init", "-q", "-b", "main")
    shell(folder, sys.executable, "-m", "dvc", "init", "-q")
    (folder / ".dvcignore").write_text("__pycache__\n.compactlm\n", encoding="utf-8")
    shell(folder, "git", "add", "-A")
    shell(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
    return folder


@pytest.fixture(scope="session")
def built_template(tmp_path_factory: pytest.TempPathFactory, fresh_template: Path) -> Path:
    """Return the same project after one run of every stage."""

    def make(folder: Path) -> None:
        shutil.copytree(fresh_template, folder / "project", symlinks=True)
        shell(folder / "project", sys.executable, "-m", "dvc", "repro", "-q")

    return made_once(tmp_path_factory, "built", make) / "project"


@pytest.fixture
def fresh(tmp_path: Path, fresh_template: Path) -> Path:
    return Path(shutil.copytree(fresh_template, tmp_path / "project", symlinks=True))


@pytest.fixture
def built(tmp_path: Path, built_template: Path) -> Path:
    return Path(shutil.copytree(built_template, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow database; making one takes seconds, copying it none."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(store_template: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put an empty MLflow store into the test's project, where a run looks for it by default."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "project" / ".compactlm" / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(store_template, folder / "mlflow.db"))


@pytest.fixture
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StageRunner]:
    made = StageRunner(tmp_path / "project")
    yield made
    made.stop()


def stage_names(workspace: Path) -> list[str]:
    return [stage.name for stage in read_graph(workspace)]


def dvc_yaml() -> str:
    """Return a dvc.yaml with the stages of the real one; each runs `small_stages.py STAGE`."""
    rounds = {"r1": "teacher", "r2": "r1", "r3": "r2"}
    model = {r: f"artifacts/rounds/{r}/trained" for r in ("teacher", *rounds)}
    lines = ["stages:"]

    def add(name: str, deps: list[str], outs: list[str], params: str) -> None:
        receipt = f"artifacts/receipts/{name}.json"
        lines.append(f"  {name}:")
        lines.append(f"    cmd: {sys.executable} tasks/small_stages.py {name}")
        lines.append(f"    deps: [{', '.join(['tasks/small_stages.py', *deps])}]")
        lines.append(f"    params: [{params}]")
        lines.append(f"    outs: [{', '.join([*outs, receipt])}]")

    def add_each(name: str, entries: dict[str, tuple[list[str], list[str]]], params: str) -> None:
        lines.append(f"  {name}:\n    foreach:")
        for key, (deps, outs) in entries.items():
            lines.append(f"      {key}:\n        deps: [{', '.join(deps)}]\n        outs: [{', '.join(outs)}]")
            assert len(deps) == 1
            assert len(outs) == 1
        lines.append("    do:")
        lines.append(f"      cmd: {sys.executable} tasks/small_stages.py {name}@${{key}}")
        lines.append("      deps:\n        - tasks/small_stages.py\n        - ${item.deps[0]}")
        lines.append(f"      params:\n        - {params}")
        lines.append(f"      outs:\n        - ${{item.outs[0]}}\n        - artifacts/receipts/{name}@${{key}}.json")

    add("fetch", ["sources.lock"], ["artifacts/fetched"], "data.source")
    add("prepare", ["artifacts/fetched"], ["artifacts/data"], "data")
    add("teacher", ["artifacts/data", "seed_model"], ["artifacts/rounds/teacher/trained"], "teacher")
    add("export_teacher", ["artifacts/rounds/teacher/trained"], ["artifacts/rounds/teacher/exported"], "seed")
    add("evaluate_teacher", ["artifacts/rounds/teacher/trained"], ["artifacts/rounds/teacher/evaluated"], "evaluate")
    add("baselines", ["artifacts/data"], ["artifacts/baselines"], "baselines")
    folder = "artifacts/rounds"
    add_each("prune", {r: ([model[p]], [f"{folder}/{r}/pruned"]) for r, p in rounds.items()}, "rounds.${key}")
    add_each("distill", {r: ([f"{folder}/{r}/pruned"], [model[r]]) for r in rounds}, "distill")
    add_each("export", {r: ([model[r]], [f"{folder}/{r}/exported"]) for r in rounds}, "seed")
    add_each("evaluate", {r: ([model[r]], [f"{folder}/{r}/evaluated"]) for r in rounds}, "evaluate")
    add_each("gate", {r: ([f"{folder}/{r}/evaluated"], [f"{folder}/{r}/verdict.json"]) for r in rounds}, "gates")
    add("select", [f"{folder}/{r}/verdict.json" for r in rounds], ["artifacts/selection.json"], "seed")
    add("report", ["artifacts/selection.json"], ["artifacts/report.html"], "seed")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def tiny_exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder the export stage wrote for the tiny model, and the facts it returned."""
    from tasks.stages import export
    from tests.integration.tiny_run import tiny_params, write_tiny_sets

    def make(folder: Path) -> None:
        write_tiny_sets(folder / "sets")
        facts = export.run(tiny_params(), model=tiny_model, sets=folder / "sets", out=folder / "exported")
        write_json(folder / "facts.json", facts)

    folder = made_once(tmp_path_factory, "exported", make)
    return folder / "exported", read_json(folder / "facts.json")
