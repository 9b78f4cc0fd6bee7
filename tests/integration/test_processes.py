"""One training in two processes (gloo): the losses of one process, one set of files, and an end for all when one ends."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401 - imported once here, and not in each process that is started
import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks import launch, prune
from tasks.causal import distill as causal_distill
from tasks.causal import teacher as causal_teacher
from tasks.causal import teacher_logits as causal_logits
from tasks.data.blocks import save_blocks
from tasks.errors import DataError, ParamsError, StageError
from tasks.lineage.files import digest, read_json, read_json_lines, write_json
from tasks.params import Launcher, Params, check_params
from tasks.stage import main
from tests.causal import causal_params, tiny_values, write_decoder
from tests.integration.test_extra_losses_stage import HIDDEN, RELATIONS, cache, params_of

TWO = Launcher(processes=2, backend="auto")
SCRATCH = Path(".compactlm") / "scratch"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test: scratches of unfinished training stand below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(trained: Path) -> list[float]:
    return [line["loss"] for line in read_json_lines(trained / "steps.jsonl") if "loss" in line]


def assert_same_training(one: Path, two: Path) -> None:
    """Raise unless both have the same losses at every step, to rounding, and the same files."""
    assert len(losses(one)) > 5
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-4)
    assert set(digest(two)["files"]) == set(digest(one)["files"])
    first, second = (read_json(trained / "summary.json")["checkpoints"] for trained in (one, two))
    for mine, other in zip(first, second, strict=True):
        numbers = [name for name in mine if name.startswith("validation_")]
        assert numbers
        np.testing.assert_allclose([other[name] for name in numbers], [mine[name] for name in numbers], rtol=1e-3)


def stage(params: Params, name: str, *arguments: object) -> int:
    """Run a stage as dvc.yaml does, inside of this process, which starts those that the launcher asks for."""
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(), file)
    return main([name, *map(str, arguments)])


def in_two(params: Params, backend: str = "auto") -> Params:
    values = params.model_dump()
    values["runtime"]["launcher"] = {"processes": 2, "backend": backend}
    return check_params(values, "params.yaml")


def student_of(params: Params, families: Path, folder: Path) -> list[object]:
    """Return the arguments of the stage distill, `--out` left out, for a BERT pruned to 72 pieces."""
    teacher, sets, tokens = families / "bert/teacher", families / "sets", folder / "tokens"
    prune.run(params, round="r1", parent=teacher, tokens=families / "bert/tokens", sets=sets, teacher=teacher,
              out=folder / "pruned", student_tokens=tokens)  # fmt: skip
    logits = cache(families, params, folder / "logits")
    return ["--round", "r1", "--pruned", folder / "pruned", "--tokens", tokens, "--sets", sets, "--logits", logits,
            "--teacher", teacher]  # fmt: skip


@pytest.mark.parametrize(
    "section",
    [
        # 15 rows on two processes never divide evenly, and dynamic weights are ratios over the whole batch
        {"batch_rows": 15, "hidden": HIDDEN, "relations": RELATIONS, "average": 0.9},
        {"batch_rows": 15, "accumulate": 4},
    ],
    ids=["extra losses", "in parts"],
)
def test_a_distillation_has_the_same_losses_on_one_and_on_two(
    tiny_families: Path, workspace: Path, section: dict[str, Any]
) -> None:
    params = params_of(**section)
    paths = student_of(params, tiny_families, workspace)
    for count, wanted in ((1, params), (2, in_two(params))):
        assert stage(wanted, "distill", *paths, "--out", f"on{count}", "--receipt", f"{count}.json") == 0
    assert_same_training(Path("on1"), Path("on2"))
    one, two = (read_json(Path(f"{count}.json")) for count in (1, 2))
    assert (one["processes"], one["backend"]) == (1, None)
    assert (two["processes"], two["backend"], two["device"]) == (2, "gloo", "cpu")
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


def test_a_language_model_and_its_student_have_the_same_losses_on_one_and_on_two(workspace: Path) -> None:
    values = tiny_values(workspace)
    shape = {"vocabulary": 258, "hidden": 32, "heads": 4, "ffn": 24, "layers": 2}
    budget = {"parent": "teacher", "train_tokens": 1600, "learning_rate": 1.0e-2}
    values["teacher"] |= {"model": "path:base", "new": None, "train_tokens": 1600, "batch_blocks": 5}
    values["distill"]["batch_blocks"] = 5
    values["rounds"] = {"r1": {**shape, **budget}}
    params = causal_params(values)
    base = write_decoder("llama", workspace / "base")
    pruned = Path(shutil.copytree(base, workspace / "pruned/model")).parent
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("validation", 6)):
        save_blocks(rng.integers(0, 60, (count, 32)).cumsum(axis=1).astype(np.int32) % 250, workspace / "tokens", name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / file, workspace / "tokens" / file)
    places: dict[str, Any] = {"sets": workspace, "tokens": workspace / "tokens"}
    teach = functools.partial(causal_teacher.run, params, base=base, **places)
    teach(out=Path("teacher1"))
    launch.launch("teacher", TWO, functools.partial(teach, out=Path("teacher2")))
    assert_same_training(Path("teacher1"), Path("teacher2"))

    teacher = Path("teacher1/model")
    causal_logits.run(params, teacher=teacher, out=Path("logits"), **places)
    learn = functools.partial(
        causal_distill.run, params, round="r1", pruned=pruned, logits=Path("logits"), teacher=teacher, **places
    )
    learn(out=Path("student1"))
    launch.launch("distill@r1", TWO, functools.partial(learn, out=Path("student2")))
    assert_same_training(Path("student1"), Path("student2"))


def test_one_that_is_killed_ends_all_and_the_next_run_goes_on_to_the_same_bits(
    tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = in_two(params_of(hidden=HIDDEN, average=0.9))
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "whole") == 0

    monkeypatch.setattr("tasks.lineage.scratch.SAVE_EVERY_SECONDS", 0.0)
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


def test_what_one_process_refuses_is_told_once(
    tiny_families: Path, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
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
        launch.launch("teacher", TWO, refuse)


def test_a_fault_of_one_process_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        if os.environ["RANK"] == "1":
            raise ValueError("a fault of our own")
        signal.pause()

    with pytest.raises(StageError, match="process 2 of 2 \\(rank 1\\) ended with code 1, see above"):
        launch.launch("teacher", TWO, fail)
    assert "ValueError: a fault of our own" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ({"processes": 0, "backend": "auto"}, "runtime.launcher.processes: got 0"),
        ({"processes": 2, "backend": "glo"}, "backend: 'glo' is not one of auto, gloo, nccl; did you mean 'gloo'?"),
        ({"processes": 2, "backends": "auto"}, "runtime.launcher.backends: unknown key; did you mean 'backend'?"),
    ],
)  # fmt: skip
def test_a_wrong_launcher_is_refused_in_words(launcher: dict[str, Any], said: str) -> None:
    values = params_of().model_dump()
    values["runtime"]["launcher"] = launcher
    with pytest.raises(ParamsError) as refused:
        check_params(values, "params.yaml")
    assert said in str(refused.value)
