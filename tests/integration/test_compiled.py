"""Training through torch.compile: the losses of plain training, and the same bits after a kill."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.files import digest, read_json
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.running import launch
from tests.integration.test_extra_losses_stage import HIDDEN, RELATIONS, params_of
from tests.integration.test_processes import in_two, two
from tests.integration.test_token_states import HIDDEN as TOKEN_HIDDEN
from tests.integration.trainings import assert_same_training, language_model, losses, stage, student_of

# of torch itself, when its compiler is imported
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")]


class KilledError(BaseException):
    """What ends a training in the middle; no handler of the product takes it for an error."""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test: scratches of unfinished training stand below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compiled(params: ClassificationParams) -> ClassificationParams:
    values = params.model_dump()
    values["runtime"]["compile"] = True
    return check_params(values, "params.yaml")


@pytest.mark.parametrize(
    "section", [{}, {"hidden": HIDDEN}, {"relations": RELATIONS}], ids=["logits", "hidden states", "relations"]
)
def test_a_distillation_has_the_losses_of_plain_training(
    tiny_families: Path, workspace: Path, section: dict[str, object]
) -> None:
    params = params_of(**section)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "plain", "--receipt", "plain.json") == 0
    assert stage(compiled(params), "distill", *paths, "--out", "compiled", "--receipt", "compiled.json") == 0
    assert_same_training(Path("plain"), Path("compiled"))
    assert "compiled" not in read_json(Path("plain.json"))["facts"]
    assert read_json(Path("compiled.json"))["facts"]["compiled"] is True


def test_a_killed_one_goes_on_to_the_same_bits(tiny_families: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = compiled(params_of())
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "whole") == 0
    monkeypatch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.progress.Progress.update", killed_at(9))
        with pytest.raises(KilledError):
            stage(params, "distill", *paths, "--out", "again")
    assert stage(params, "distill", *paths, "--out", "again") == 0
    assert digest(Path("again")) == digest(Path("whole"))


def killed_at(last: int) -> object:
    def update(_progress: object, step: int, **_numbers: float) -> None:
        if step == last:
            raise KilledError

    return update


@pytest.mark.parametrize(
    "more",
    [{}, {"accumulate": 2}, {"hidden": TOKEN_HIDDEN, "layers": 3}, {"cache": {"top_k": 128, "tokens": 1600}}],
    ids=["logits", "parts of two sizes", "hidden states", "cached"],
)
def test_a_language_model_and_its_student_have_the_losses_of_plain_training(workspace: Path, more: dict[str, Any]) -> None:
    for name, runtime in (("plain", {}), ("compiled", {"compile": True})):
        teach, learning = language_model(workspace, runtime, **more)
        teach(out=Path(f"teacher-{name}"))
        learning(Path("teacher-plain/model"))(out=Path(f"student-{name}"))
    assert_same_training(Path("teacher-plain"), Path("teacher-compiled"))
    assert_same_training(Path("student-plain"), Path("student-compiled"))


def test_in_bf16_attention_is_that_of_plain_training(workspace: Path) -> None:
    """There it is computed as matrix products, compiled too; losses differ by what bf16 rounds."""
    for name, compile_it in (("plain", False), ("compiled", True)):
        teach, _ = language_model(workspace, {"precision": "bf16", "compile": compile_it})
        teach(out=Path(name))
    np.testing.assert_allclose(losses(Path("compiled")), losses(Path("plain")), rtol=5e-3)


def test_a_student_of_two_processes_has_the_losses_of_plain_training(tiny_families: Path, workspace: Path) -> None:
    params = params_of(batch_rows=15)
    paths = student_of(params, tiny_families, workspace)
    assert stage(params, "distill", *paths, "--out", "plain") == 0
    assert stage(in_two(compiled(params)), "distill", *paths, "--out", "compiled", "--receipt", "compiled.json") == 0
    assert_same_training(Path("plain"), Path("compiled"))
    receipt = read_json(Path("compiled.json"))
    assert (receipt["processes"], receipt["facts"]["compiled"]) == (2, True)


def test_a_language_model_of_two_processes_has_the_losses_of_plain_training(workspace: Path) -> None:
    for name, runtime in (("plain", {}), ("compiled", {"compile": True})):
        teach, _ = language_model(workspace, runtime)
        launch.launch("teacher", two("ddp"), functools.partial(teach, out=Path(name)))
    assert_same_training(Path("plain"), Path("compiled"))


def test_a_killed_language_model_goes_on_to_the_same_bits(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach, _ = language_model(workspace, {"compile": True}, accumulate=2)
    teach(out=Path("whole"))
    monkeypatch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.progress.Progress.update", killed_at(9))
        with pytest.raises(KilledError):
            teach(out=Path("again"))
    assert any(Path(".compactlm/scratch").rglob("*")), "nothing to go on from"
    teach(out=Path("again"))
    assert digest(Path("again")) == digest(Path("whole"))
