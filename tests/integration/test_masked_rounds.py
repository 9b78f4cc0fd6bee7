"""Rounds of masks through the stages: the share asked for is zero, stays zero, and is told with its denominators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.audit.classification import pruned
from tasks.errors import ParamsError
from tasks.files import read_json
from tasks.models.checkpoint import load_classifier
from tasks.models.masks import Masker, products, zero_weights
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.stages import distill, prune, teacher_logits
from tests.integration.tiny_run import FAMILIES, tiny_params

HALF = {"granularity": "unstructured", "criterion": "magnitude_l1", "sparsity": 0.5, "schedule": "single"}
TWO_OF_FOUR = {"granularity": "n_m", "criterion": "magnitude_l2", "pattern": "2:4", "schedule": "single"}


def params_of(target: dict[str, Any], **section: Any) -> ClassificationParams:
    values: dict[str, Any] = tiny_params().model_dump()
    values["data"]["max_tokens"] = 48
    values["distill"] |= {"batch_rows": 16, "checkpoints": 4, **section}
    budget = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 0.5, "learning_rate": 5.0e-3}
    values["rounds"] = {"r1": {**budget, **target}}
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return check_params(values, "params.yaml")


def masked(families: Path, family: str, params: ClassificationParams, out: Path) -> dict[str, Any]:
    """Prune and return what plan.json says of the masks."""
    mine = families / family
    prune.run(
        params,
        round="r1",
        parent=mine / "teacher",
        teacher=mine / "teacher",
        tokens=mine / "tokens",
        sets=families / "sets",
        out=out / "pruned",
        planned=out / "search/planned.json",
        student_tokens=out / "tokens",
    )
    record: dict[str, Any] = read_json(out / "pruned/plan.json")["masks"]
    return record


@pytest.mark.parametrize("criterion", ["magnitude_l1", "random", "taylor", "wanda"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_the_weights_in_layers_go_and_the_others_stay(
    tiny_families: Path, tmp_path: Path, family: str, criterion: str
) -> None:
    record = masked(tiny_families, family, params_of({**HALF, "criterion": criterion}), tmp_path)
    student, teacher = load_classifier(tmp_path / "pruned/model"), load_classifier(tiny_families / family / "teacher")
    kept = {f"{name}.weight": module.weight != 0 for name, module in products(student).items()}
    assert record["weights_masked"] == sum(mask.numel() for mask in kept.values())
    assert record["params_total"] == student.num_parameters()
    assert record["sparsity_of_masked"] == pytest.approx(0.5, abs=0.01)
    assert record["sparsity_of_total"] == record["weights_zeroed"] / record["params_total"] < 0.5
    assert zero_weights(student) == {key: record[key] for key in zero_weights(student)}
    for (name, mine), theirs in zip(student.state_dict().items(), teacher.state_dict().values(), strict=True):
        assert torch.equal(mine, torch.where(kept[name], theirs, 0.0) if name in kept else theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_of_four_neighbouring_inputs_stay(tiny_families: Path, tmp_path: Path, family: str) -> None:
    record = masked(tiny_families, family, params_of(TWO_OF_FOUR), tmp_path)
    assert record["sparsity_of_masked"] == 0.5
    for name, module in products(load_classifier(tmp_path / "pruned/model")).items():
        weight = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        assert (weight.reshape(-1, 4).count_nonzero(dim=1) == 2).all(), name


@pytest.mark.parametrize(
    ("target", "average"),
    [(HALF, None), (TWO_OF_FOUR, 0.9), ({**HALF, "schedule": "cubic"}, 0.9), ({**HALF, "schedule": "linear"}, None)],
)
def test_what_is_masked_stays_zero_through_training_and_a_kill(
    tiny_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any], average: float | None
) -> None:
    monkeypatch.chdir(tmp_path)  # scratches of unfinished training stand below the workspace
    params, teacher = params_of(target, average=average), tiny_families / "bert/teacher"
    record = masked(tiny_families, "bert", params, tmp_path)
    assert record["sparsity_of_masked"] == (0.5 if target["schedule"] == "single" else 0.0)
    sets, logits = tiny_families / "sets", tmp_path / "logits"
    teacher_logits.run(params, teacher=teacher, sets=sets, tokens=tiny_families / "bert/tokens", out=logits)
    paths = {
        "pruned": tmp_path / "pruned",
        "search": tmp_path / "search",
        "tokens": tmp_path / "tokens",
        "sets": sets,
        "logits": logits,
    }
    distill.run(params, round="r1", out=tmp_path / "whole", teacher=teacher, **paths)
    summary = read_json(tmp_path / "whole/summary.json")
    assert len(summary["checkpoints"]) == (4 if target["schedule"] == "single" else 2)
    for one in summary["checkpoints"]:
        weights = load_file(tmp_path / "whole/checkpoints" / one["name"] / "model.safetensors")
        student = load_classifier(tmp_path / "pruned/model")
        before = {name: module.weight == 0 for name, module in products(student).items()}
        student.load_state_dict(weights)
        assert zero_weights(student)["sparsity_of_masked"] == pytest.approx(0.5, abs=0.01)
        assert all((module.weight[before[name]] == 0).all() for name, module in products(student).items())

    with monkeypatch.context() as patch:
        patch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
        patch.setattr("tasks.progress.Progress.update", killed_at(7))
        with pytest.raises(KeyboardInterrupt):
            distill.run(params, round="r1", out=tmp_path / "killed", teacher=teacher, **paths)
    distill.run(params, round="r1", out=tmp_path / "killed", teacher=teacher, **paths)
    assert read_json(tmp_path / "killed/summary.json") == summary


def killed_at(last: int) -> Any:
    def update(_self: object, step: int, **_numbers: float) -> None:
        if step == last:
            raise KeyboardInterrupt

    return update


def test_masks_follow_again_from_the_stored_files(tiny_families: Path, tmp_path: Path) -> None:
    place, parent = tmp_path / "artifacts/rounds/r1", tmp_path / "artifacts/rounds/teacher/trained"
    masked(tiny_families, "bert", params_of(TWO_OF_FOUR), place)
    parent.mkdir(parents=True)
    (parent / "model").symlink_to(tiny_families / "bert/teacher")
    assert pruned(tmp_path, "r1", "teacher") == []
    masks = place / "pruned/masks.safetensors"
    content = bytearray(masks.read_bytes())
    content[-1] ^= 1
    masks.write_bytes(content)
    found = [check.subject for check in pruned(tmp_path, "r1", "teacher")]
    assert found == ["r1: masks_sha256", "artifacts/rounds/r1/pruned/model/model.safetensors"]


def test_estimating_masks_again_at_the_same_sparsity_changes_nothing(tiny_families: Path) -> None:
    """That is why a training which goes on after a kill may do it once more."""
    model = load_classifier(tiny_families / "bert/teacher")
    Masker(model, "cubic", 0.6).begin(0.3)
    before = {name: module.weight.clone() for name, module in products(model).items()}
    Masker(model, "cubic", 0.6).begin(0.3)
    assert all(torch.equal(module.weight, before[name]) for name, module in products(model).items())
    assert 0 < zero_weights(model)["sparsity_of_masked"] < 0.6


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({**HALF, "criterion": "activation"}, "rounds.r1: criterion: masks rank single weights"),
        ({**HALF, "hidden": 8}, "rounds.r1: hidden: granularity: unstructured keeps the parent's shape"),
        ({**HALF, "pattern": "2:4"}, "needs sparsity and schedule, and takes no pattern"),
        ({**TWO_OF_FOUR, "schedule": "cubic"}, "here only single will do"),
        ({**TWO_OF_FOUR, "pattern": "4:4"}, "keeps 4 of 4 weights: nothing goes"),
        ({"params_total": 9, "ratio": 2.0}, "params_total and ratio: one budget at a time"),
        ({"hidden": 8}, "vocabulary, heads, ffn, layers: missing"),
        ({"sparsity": 0.5, "params_total": 9}, "sparsity: belongs to granularity"),
    ],
)
def test_rounds_that_say_too_much_or_too_little_are_refused(target: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        params_of(target)
    assert said in str(refused.value)


def test_a_pattern_that_does_not_fit_is_refused(tiny_families: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="pattern: 2:5 does not divide the 32 inputs of"):
        masked(tiny_families, "bert", params_of({**TWO_OF_FOUR, "pattern": "2:5"}), tmp_path)
