"""A batch of blocks that is computed in parts trains a language model, and its student, as the whole batch does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.trainings import assert_same_training, language_model


def test_a_language_model_and_its_student_learn_the_same_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teach, learning = language_model(tmp_path)
    teach_in_parts, learning_in_parts = language_model(tmp_path, accumulate=3)  # of 5 blocks: 2, 2, 1
    teach(out=Path("teacher"))
    teach_in_parts(out=Path("teacher_in_parts"))
    assert_same_training(Path("teacher"), Path("teacher_in_parts"))

    learning(Path("teacher/model"))(out=Path("student"))
    learning_in_parts(Path("teacher/model"))(out=Path("student_in_parts"))
    assert_same_training(Path("student"), Path("student_in_parts"))
