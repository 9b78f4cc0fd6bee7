"""One training in two processes (gloo): the losses of one process, one set of files, and an end for all when one ends."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401 - imported once here, and not in each process that is started
import pytest
import torch

from tasks.errors import DataError, ParamsError, StageError
from tasks.files import digest, read_json, write_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.params.base import Launcher
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.running import launch
from tasks.training.loop import Course, Learning, Schedule
from tests.integration.test_extra_losses_stage import HIDDEN, RELATIONS, params_of
from tests.integration.trainings import assert_same_training, language_model, stage, student_of

SCRATCH = Path(".compactlm") / "scratch"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test: scratches of unfinished training stand below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two(strategy: str) -> Launcher:
    return Launcher(processes=2, backend="auto", strategy=strategy)


def in_two(params: ClassificationParams, backend: str = "auto", strategy: str = "ddp") -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": 2, "backend": backend, "strategy": strategy}
    return check_params(values, "params.yaml")


@pytest.mark.parametrize(
    ("strategy", "section"),
    [
        # 15 rows on two processes never divide evenly, and dynamic weights are ratios over the whole batch
        ("ddp", {"batch_rows": 15, "hidden": HIDDEN, "relations": RELATIONS, "average": 0.9}),
        pytest.param("ddp", {"batch_rows": 15, "accumulate": 4}, marks=pytest.mark.slow),
        ("fsdp", {"batch_rows": 15, "accumulate": 4}),
    ],
    ids=["extra losses", "in parts", "in parts, sharded"],
)
def test_a_distillation_has_the_same_losses_on_one_and_on_two(
    tiny_families: Path, workspace: Path, strategy: str, section: dict[str, Any]
) -> None:
    params = params_of(**section)
    paths = student_of(params, tiny_families, workspace)
    for count, wanted in ((1, params), (2, in_two(params, strategy=strategy))):
        assert stage(wanted, "distill", *paths, "--out", f"on{count}", "--receipt", f"{count}.json") == 0
    assert_same_training(Path("on1"), Path("on2"))
    one, two = (read_json(Path(f"{count}.json")) for count in (1, 2))
    assert (one["processes"], one["backend"]) == (1, None)
    assert (two["processes"], two["backend"], two["device"]) == (2, "gloo", "cpu")
    assert two["facts"].get("strategy") == (None if strategy == "ddp" else strategy)
    assert not (SCRATCH / "distill@r1").exists()


def test_a_teacher_has_the_same_losses_on_one_and_on_two(tiny_families: Path, workspace: Path) -> None:
    """Without dropout, that is, which drops other units in each process."""
    base = Path(shutil.copytree(tiny_families / "bert/teacher", workspace / "base"))
    config = read_json(base / "config.json")
    write_json(base / "config.json", {**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    values = params_of().model_dump()
    values["teacher"] |= {"epochs": 1, "batch_rows": 21, "checkpoints": 2, "label_smoothing": 0.1}
    params = check_params(values, "params.yaml")
    paths = ["--base", base, "--sets", tiny_families / "sets", "--tokens", tiny_families / "bert/tokens"]
    for count, wanted in ((1, params), (2, in_two(params))):
        assert stage(wanted, "teacher", *paths, "--out", f"on{count}") == 0
    assert_same_training(Path("on1"), Path("on2"))


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_language_model_and_its_student_have_the_same_losses_on_one_and_on_two(workspace: Path, strategy: str) -> None:
    teach, learning = language_model(workspace)
    teach(out=Path("teacher1"))
    launch.launch("teacher", two(strategy), functools.partial(teach, out=Path("teacher2")))
    assert_same_training(Path("teacher1"), Path("teacher2"))

    learn = learning(Path("teacher1/model"))
    learn(out=Path("student1"))
    launch.launch("distill@r1", two(strategy), functools.partial(learn, out=Path("student2")))
    assert_same_training(Path("student1"), Path("student2"))


def test_with_shares_each_process_holds_half_of_the_weights_and_of_the_optimiser(tiny_families: Path) -> None:
    def work() -> None:
        device = pick("cpu", "fp32", 1)
        model = load_classifier(tiny_families / "bert/teacher")
        schedule = Schedule(1e-3, 0.1, 0.0, 1.0, 1, 0)
        course = Course([], lambda one, ids: one(input_ids=ids).logits.square().mean(), schedule)
        learning = Learning(model, course, device)
        learning.step_loss(torch.ones((4, 8), dtype=torch.int64)).backward()
        learning.optimiser.step()
        whole = sum(p.numel() for p in model.parameters())
        moments = [state["exp_avg"] for state in learning.optimiser.state.values()]
        for held in (list(learning.trained.parameters()), moments):
            assert 0.45 * whole < sum(part.to_local().numel() for part in held) < 0.55 * whole
        device.processes.end_others()

    launch.launch("distill", two("fsdp"), work)


@pytest.mark.parametrize(
    ("strategy", "section"), [("ddp", {"hidden": HIDDEN, "average": 0.9}), pytest.param("fsdp", {}, marks=pytest.mark.slow)]
)
def test_one_that_is_killed_ends_all_and_the_next_run_goes_on_to_the_same_bits(
    tiny_families: Path,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    strategy: str,
    section: dict[str, Any],
) -> None:
    params = in_two(params_of(**section), strategy=strategy)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "whole") == 0

    monkeypatch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.models.processes.Processes.share", killed_at(9))
        assert stage(params, "distill", *paths, "--out", "again") == 1
    assert "error: distill: process 2 of 2 (rank 1) was ended by SIGKILL" in capfd.readouterr().err
    assert (SCRATCH / "distill@r1/state.pt").exists()
    assert not Path("again").exists()
    assert stage(params, "distill", *paths, "--out", "again") == 0
    assert digest(Path("again")) == digest(Path("whole"))


def killed_at(last: int) -> Any:
    from tasks.models.processes import Processes

    share, calls = Processes.share, 0

    def shared(self: Processes, rows: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last and self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return share(self, rows)

    return shared


def test_what_one_process_refuses_is_told_once(tiny_families: Path, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    params = in_two(params_of(), backend="nccl")
    paths = [
        "--base",
        tiny_families / "bert/teacher",
        "--sets",
        tiny_families / "sets",
        "--tokens",
        tiny_families / "bert/tokens",
    ]
    assert stage(params, "teacher", *paths, "--out", "out") == 2
    said = capfd.readouterr().err
    assert said.count("error: params.yaml: runtime.launcher.backend: nccl works between GPUs; use gloo, or auto") == 1
    assert "Traceback" not in said

    def refuse() -> None:
        if os.environ["RANK"] == "1":
            raise DataError("rows.csv: these are no rows")
        signal.pause()

    with pytest.raises(DataError, match="these are no rows"):
        launch.launch("teacher", two("ddp"), refuse)


def test_a_fault_of_one_process_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        if os.environ["RANK"] == "1":
            raise ValueError("a fault of our own")
        signal.pause()

    with pytest.raises(StageError, match="process 2 of 2 \\(rank 1\\) ended with code 1, see above"):
        launch.launch("teacher", two("ddp"), fail)
    assert "ValueError: a fault of our own" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ({"processes": 0, "backend": "auto", "strategy": "ddp"}, "runtime.launcher.processes: got 0"),
        (
            {"processes": 2, "backend": "glo", "strategy": "ddp"},
            "backend: 'glo' is not one of auto, gloo, nccl; did you mean 'gloo'?",
        ),
        (
            {"processes": 2, "backends": "auto", "strategy": "ddp"},
            "runtime.launcher.backends: unknown key; did you mean 'backend'?",
        ),
        ({"processes": 2, "backend": "auto"}, "runtime.launcher.strategy: missing"),
    ],
)
def test_a_wrong_launcher_is_refused_in_words(launcher: dict[str, Any], said: str) -> None:
    values = params_of().model_dump()
    values["runtime"]["launcher"] = launcher
    with pytest.raises(ParamsError) as refused:
        check_params(values, "params.yaml")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distill": {"hidden": HIDDEN}}, "distill.hidden needs whole weights"),
        ({"distill": {"relations": RELATIONS}}, "distill.relations needs whole weights"),
        ({"distill": {"average": 0.9}}, "distill.average needs whole weights"),
        ({"runtime": {"compile": True}}, "runtime.compile: true is for whole models"),
    ],
)
def test_what_needs_whole_weights_is_refused_with_shares(changes: dict[str, dict[str, Any]], said: str) -> None:
    values = in_two(params_of(), strategy="fsdp").model_dump()
    for section, keys in changes.items():
        values[section] |= keys
    with pytest.raises(ParamsError) as refused:
        check_params(values, "params.yaml")
    assert said in str(refused.value)
    assert "set runtime.launcher.strategy: ddp" in str(refused.value)
    values["runtime"]["launcher"]["strategy"] = "ddp"
    check_params(values, "params.yaml")


def test_masks_are_refused_with_shares() -> None:
    values = in_two(params_of(), strategy="fsdp").model_dump()
    (name,) = values["rounds"]
    values["rounds"][name] |= {"granularity": "unstructured", "sparsity": 0.5, "schedule": "single", "criterion": "wanda"}
    for axis in ("vocabulary", "hidden", "heads", "ffn", "layers"):
        values["rounds"][name][axis] = None
    with pytest.raises(
        ParamsError, match=r"r1\.granularity: unstructured needs whole weights; set runtime\.launcher\.strategy: ddp"
    ):
        check_params(values, "params.yaml")
