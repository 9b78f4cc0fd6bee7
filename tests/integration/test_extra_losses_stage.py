"""Distillation on hidden states and relations through the stages, on a tiny BERT with a pruned vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tasks.data.frames import read_sets
from tasks.data.tokens import joined, load_tokens
from tasks.data.vocabulary import ids_at_teacher
from tasks.errors import DataError, ParamsError
from tasks.files import read_json
from tasks.models.checkpoint import load_classifier, read_config
from tasks.models.devices import Device
from tasks.models.predict import inputs_of
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.running.preflight import check_shapes
from tasks.stages import distill, prune, teacher_logits
from tasks.training.extra_losses import Batch, make_extras
from tasks.training.lesson import Lesson, Student
from tasks.training.teacher_cache import CACHED_SETS, LEARNT_SETS, States
from tests.integration.tiny_run import FAMILIES, tiny_params

CPU = Device(torch.device("cpu"), "fp32", 1)
HIDDEN = {"loss": "mse", "weight": "dynamic", "layers": "uniform", "until_share": 0.5}
RELATIONS = {"heads": 4, "weight": 2.0, "until_share": 1.0}


def params_of(**section: Any) -> ClassificationParams:
    values: dict[str, Any] = tiny_params().model_dump()
    values["data"]["max_tokens"] = 48
    values["distill"] |= {"batch_rows": 16, "checkpoints": 2, **section}
    shape = {"vocabulary": 72, "hidden": 16, "heads": 2, "ffn": 24, "layers": 2}
    budget = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 0.5, "learning_rate": 5.0e-3}
    values["rounds"] = {"r1": {**shape, **budget}}
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return check_params(values, "params.yaml")


def cache(folder: Path, params: ClassificationParams, out: Path, family: str = "bert") -> Path:
    mine = folder / family
    teacher_logits.run(params, teacher=mine / "teacher", sets=folder / "sets", tokens=mine / "tokens", out=out)
    return out


@pytest.mark.parametrize("layers", ["uniform", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    tiny_families: Path, tmp_path: Path, family: str, layers: str
) -> None:
    params = params_of(hidden={**HIDDEN, "layers": layers}, relations={**RELATIONS, "heads": 2})
    logits = cache(tiny_families, params, tmp_path / "logits", family)
    teacher, tokens = tiny_families / family / "teacher", tiny_families / family / "tokens"
    student, frames = Student(load_classifier(teacher), teacher), read_sets(tiny_families / "sets", CACHED_SETS)
    data = joined(*(load_tokens(tokens / name) for name in LEARNT_SETS))
    lesson = Lesson(tiny_families / "sets", tokens, logits, teacher)
    extras = make_extras(params.distill, student, data, frames, lesson, CPU)
    rows = np.arange(190, 220)  # the end of the training set and the start of the transfer set
    inputs = inputs_of(student.model, data, rows)
    seen = student.model(**inputs, output_hidden_states=True).hidden_states
    hidden, relations = (one.loss(Batch(rows, inputs, seen)).detach() for one in extras.active)
    assert hidden.shape == relations.shape == (30,)
    assert 0 <= hidden.max() < 1e-3  # cached as float16
    assert relations.abs().max() < 1e-5
    extras.begin(0.5)
    assert len(extras.active) == 1


def test_a_student_learns_from_more_than_logits_and_goes_on_after_a_kill(
    tiny_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # scratches of unfinished training stand below the workspace
    params = params_of(hidden=HIDDEN, relations=RELATIONS, average=0.9)
    plain = params_of()
    teacher, sets, tokens = tiny_families / "bert/teacher", tiny_families / "sets", tmp_path / "tokens"
    prune.run(
        params,
        round="r1",
        parent=teacher,
        tokens=tiny_families / "bert/tokens",
        sets=sets,
        teacher=teacher,
        out=tmp_path / "pruned",
        planned=tmp_path / "search/planned.json",
        student_tokens=tokens,
    )
    paths = {"pruned": tmp_path / "pruned", "search": tmp_path / "search", "tokens": tokens, "sets": sets, "teacher": teacher}
    logits, none = cache(tiny_families, params, tmp_path / "logits"), cache(tiny_families, plain, tmp_path / "none")
    assert sorted(path.name for path in none.iterdir()) == ["fingerprint.json", "train.npy", "transfer.npy", "validation.npy"]
    with pytest.raises(DataError, match="dvc repro teacher_logits"):
        distill.run(params, round="r1", logits=none, out=tmp_path / "refused", **paths)

    distill.run(params, round="r1", logits=logits, out=tmp_path / "whole", **paths)
    distill.run(plain, round="r1", logits=logits, out=tmp_path / "plain", **paths)
    distill.run(params_of(piece_dropout=0.5), round="r1", logits=logits, out=tmp_path / "spelled", **paths)
    tokens_read = {out: read_json(tmp_path / out / "summary.json")["tokens"] for out in ("plain", "spelled")}
    assert tokens_read["spelled"] > tokens_read["plain"]  # the same rows in shorter pieces
    whole, without = (load_file(tmp_path / out / "model/model.safetensors") for out in ("whole", "plain"))
    assert set(whole) == set(without), "what trained beside the student is thrown away"
    assert any(not torch.equal(whole[name], without[name]) for name in whole)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
        patch.setattr("tasks.progress.Progress.update", killed_at(7))
        with pytest.raises(KeyboardInterrupt):
            distill.run(params, round="r1", logits=logits, out=tmp_path / "killed", **paths)
    distill.run(params, round="r1", logits=logits, out=tmp_path / "killed", **paths)
    again = load_file(tmp_path / "killed/model/model.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert read_json(tmp_path / "killed/summary.json") == read_json(tmp_path / "whole/summary.json")
    assert all(one["learnt_kl_nats_per_example"] > 0.0 for one in read_json(tmp_path / "whole/summary.json")["checkpoints"])


def killed_at(last: int) -> Any:
    def update(_self: object, step: int, **_numbers: float) -> None:
        if step == last:
            raise KeyboardInterrupt

    return update


def test_states_for_other_rows_are_refused(tiny_families: Path, tmp_path: Path) -> None:
    logits = cache(tiny_families, params_of(hidden={**HIDDEN, "layers": "last"}), tmp_path / "logits")
    frames = read_sets(tiny_families / "sets", CACHED_SETS)
    assert States(logits, frames, [3])[np.array([250, 3])].shape == (2, 1, 2, 32)
    with pytest.raises(DataError, match="of layers \\[1\\] are wanted and of \\[3\\] cached"):
        States(logits, frames, [1])
    frames["train"].loc[0, "text"] += " else"
    with pytest.raises(DataError, match="other rows"):
        States(logits, frames, [3])


def test_relation_heads_that_do_not_divide_are_refused_before_anything_runs(tiny_families: Path) -> None:
    params = params_of(relations={**RELATIONS, "heads": 3})
    with pytest.raises(ParamsError, match="3 relation heads do not divide the 32 channels of the attention of the teacher"):
        check_shapes(params, read_config(tiny_families / "bert/teacher"))


def test_a_students_pieces_are_found_in_the_teachers_vocabulary(tiny_families: Path, tmp_path: Path) -> None:
    teacher = tiny_families / "bert/teacher"
    prune.run(
        params_of(),
        round="r1",
        parent=teacher,
        tokens=tiny_families / "bert/tokens",
        sets=tiny_families / "sets",
        teacher=teacher,
        out=tmp_path / "pruned",
        planned=tmp_path / "search/planned.json",
        student_tokens=tmp_path / "tokens",
    )
    ours, theirs = (read_json(f / "tokenizer.json") for f in (tmp_path / "pruned/model", teacher))
    kept = read_json(tmp_path / "pruned/plan.json")["keep"]["vocabulary"]
    assert ids_at_teacher(ours, theirs).tolist() == kept
    decoder = read_json(tiny_families / "gpt2/teacher/tokenizer.json")
    assert ids_at_teacher(decoder, decoder).tolist() == list(range(258))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"hidden": {**HIDDEN, "weight": 0}}, "distill.hidden.weight: got 0; dynamic"),
        ({"hidden": {**HIDDEN, "losses": 1}}, "distill.hidden.losses: unknown key; did you mean 'loss'?"),
        ({"piece_dropout": 0.1, "relations": RELATIONS}, "piece_dropout: relations compares tokens with the teacher's"),
        ({"hidden": HIDDEN, "accumulate": 2}, "hidden.weight: dynamic would be another ratio"),
    ],
)
def test_wrong_sections_are_refused_in_words(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        params_of(**section)
    assert said in str(refused.value)
