"""A language model's student learns from its teacher's states as well: token by token, two layers below the last."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import DataError, ParamsError
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import Device
from tasks.models.predict import predicting, predicting_beside
from tasks.params.base import Launcher
from tasks.params.causal_lm import TokenHidden
from tasks.pruning.causal_lm import student_from_plan
from tasks.pruning.shapes import Plan
from tasks.running import launch
from tasks.training.token_states import token_match
from tests.causal import write_decoder
from tests.integration.trainings import assert_same_training, language_model, losses
from tests.property.test_families import everything

CPU = Device(torch.device("cpu"), "fp32", 1)
HIDDEN = {"loss": "cosine", "weight": 0.5, "layers": "last_but_two", "until_share": 0.5}


def section(loss: str, weight: float | str) -> TokenHidden:
    return TokenHidden.model_validate({**HIDDEN, "loss": loss, "weight": weight, "until_share": 1.0})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taught(folder: Path, **distill: Any) -> functools.partial[Any]:
    teach, learning = language_model(folder, layers=3, **distill)
    if not Path("teacher").exists():
        teach(out=Path("teacher"))
    learn = learning(Path("teacher/model"))
    assert isinstance(learn, functools.partial)
    return learn


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_it_is_zero_for_a_student_that_is_its_teacher_and_more_for_any_other(tmp_path: Path, family: str, loss: str) -> None:
    teacher = load_causal_lm(write_decoder(family, tmp_path / family))
    blocks = np.random.default_rng(0).integers(0, 60, (40, 32)).astype(np.int32)
    match = token_match(teacher, teacher, blocks, CPU, None, section(loss, "dynamic"))
    ids = torch.from_numpy(blocks[:4].astype(np.int64))
    with torch.no_grad():
        head, states = predicting_beside(teacher, ids, match.layers[0])
    assert states is not None
    torch.testing.assert_close(head.hidden_ND, predicting(teacher, ids).hidden_ND.detach())
    assert float(match.loss(states, states).detach()) == pytest.approx(0.0, abs=2e-3)
    assert float(match.loss(states.flip(0), states).detach()) > 0.1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_student_of_fewer_tokens_is_compared_at_the_same_tokens(tmp_path: Path, family: str) -> None:
    folder = write_decoder(family, tmp_path / family)
    teacher, kept = load_causal_lm(folder), list(range(0, 258, 2))
    student = student_from_plan(folder, Plan(**{**everything(folder), "vocabulary": kept}))
    kept_V = torch.tensor(kept)
    blocks = np.random.default_rng(0).integers(0, len(kept), (40, 32)).astype(np.int32)
    match = token_match(student, teacher, blocks, CPU, kept_V, section("cosine", 0.5))
    ids = torch.from_numpy(blocks[:4].astype(np.int64))
    with torch.no_grad():
        _, ours = predicting_beside(student, ids, match.layers[0])
        _, theirs = predicting_beside(teacher, ids, match.layers[1], kept_V)
        _, others = predicting_beside(teacher, ids, match.layers[1])
    assert ours is not None
    assert theirs is not None
    assert others is not None
    torch.testing.assert_close(ours, theirs)
    assert float(match.loss(ours, theirs).detach()) == pytest.approx(0.0, abs=2e-3)
    assert float(match.loss(ours, others).detach()) > 0.05, "ids of the student are other tokens of the teacher"


def test_states_are_learnt_in_the_first_half_alone(folder: Path) -> None:
    taught(folder, hidden=HIDDEN)(out=Path("with"))
    taught(folder)(out=Path("without"))
    one, other = losses(Path("with")), losses(Path("without"))
    assert all(more > less for more, less in zip(one[:5], other[:5], strict=True)), "the loss on states is added"
    assert one[-1] == pytest.approx(other[-1], rel=0.2), "and no more in the second half"
    assert one[-1] != other[-1], "but it changed the weights"


def test_two_processes_learn_what_one_does(folder: Path) -> None:
    learn = taught(folder, hidden={**HIDDEN, "weight": "dynamic", "loss": "mse"})
    learn(out=Path("one"))
    launch.launch("distill@r1", Launcher(processes=2, backend="auto", strategy="ddp"), functools.partial(learn, out=Path("two")))
    assert_same_training(Path("one"), Path("two"))


def test_parts_of_a_batch_learn_what_the_whole_does(folder: Path) -> None:
    taught(folder, hidden=HIDDEN)(out=Path("whole"))
    taught(folder, hidden=HIDDEN, accumulate=3)(out=Path("parts"))
    assert_same_training(Path("whole"), Path("parts"))


def test_a_model_without_such_a_layer_is_refused(tmp_path: Path) -> None:
    model = load_causal_lm(write_decoder("llama", tmp_path / "llama"))
    model.model.layers = model.model.layers[:2]
    blocks = np.zeros((4, 16), dtype=np.int32)
    with pytest.raises(DataError, match="student and teacher have 2 and 2"):
        token_match(model, model, blocks, CPU, None, section("mse", 1.0))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"hidden": HIDDEN, "layers": 2}, "rounds.r1.layers: 2, and distill.hidden compares"),
        ({"hidden": {**HIDDEN, "weight": "dynamic"}, "accumulate": 2}, "dynamic would be another ratio"),
        ({"hidden": HIDDEN, "cache": {"top_k": 128, "tokens": 1600}}, "runs beside the student; set cache: null"),
        ({"hidden": {**HIDDEN, "layers": "uniform"}}, "distill.hidden.layers"),
        (
            {"hidden": HIDDEN, "runtime": {"launcher": {"processes": 2, "backend": "auto", "strategy": "fsdp"}}},
            "distill.hidden needs whole weights",
        ),
    ],
)
def test_what_it_cannot_go_with_is_refused_at_the_start(folder: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        language_model(folder, **{"layers": 3, **section})
