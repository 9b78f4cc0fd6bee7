"""Which checkpoint becomes the model, on a tiny BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.data.tokens import load_tokens
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device
from tasks.models.predict import predict_logits
from tasks.training.keeper import RowKeeper
from tasks.training.scratch import Scratch

CPU = Device(torch.device("cpu"), "fp32", 1)


@pytest.mark.parametrize(("has_teacher", "best"), [(True, "step-000001"), (False, "step-000002")])
def test_a_student_keeps_what_is_closest_to_its_teacher(
    tiny_families: Path, tmp_path: Path, has_teacher: bool, best: str
) -> None:
    """The second checkpoint is right about every row, the first answers as the teacher does."""
    place = tiny_families / "bert"
    model, tokens = load_classifier(place / "teacher"), load_tokens(place / "tokens" / "validation")
    teacher_logits = predict_logits(model, tokens, 8, CPU)
    changed = load_classifier(place / "teacher")
    with torch.no_grad():
        changed.classifier.weight.neg_()
        changed.classifier.bias.neg_()
    labels = predict_logits(changed, tokens, 8, CPU).argmax(axis=1)
    scratch = Scratch("distill@r1", "key", tmp_path)
    # On the rows learnt from, the second checkpoint is the one that answers as the teacher does.
    learnt = (tokens, -teacher_logits) if has_teacher else None
    keeper = RowKeeper(scratch, CPU, tokens, labels, 8, teacher_logits if has_teacher else None, learnt)
    for step, one in ((1, model), (2, changed)):
        scratch.record({"step": step, **keeper.checkpoint(one, step)})
    summary = keeper.finish(model, place / "teacher", tmp_path / "trained", tokens=10)
    assert summary["best_checkpoint"] == best
    first, second = summary["checkpoints"]
    assert second["validation_accuracy"] == summary.get("best_validation_accuracy", 1.0) == 1.0
    if has_teacher:
        assert first["validation_kl_nats_per_example"] == summary["best_validation_kl_nats_per_example"] == 0.0
        assert second["validation_kl_nats_per_example"] > 0.0
        assert first["learnt_kl_nats_per_example"] > 0.0
        assert second["learnt_kl_nats_per_example"] < 1e-6
    else:
        assert not any("kl" in name for name in first)
    assert torch.equal(model.classifier.weight, changed.classifier.weight) is not has_teacher
