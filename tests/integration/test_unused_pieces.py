"""Rounds that ask for more pieces than the data have, through `prune`: a smaller table, said, and the texts as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.tokens import load_tokens
from tasks.data.vocabulary import pieces_in_order
from tasks.files import read_json
from tasks.models.checkpoint import read_config
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.stages import prune
from tests.integration.tiny_run import tiny_params

SHAPE = {"hidden": 16, "heads": 2, "ffn": 24, "layers": 2}
UNSEEN = {"##ing", "##ly", "never"}  # pieces of two letters or more that no row of tiny_run has


def params_of(rounds: dict[str, dict[str, Any]]) -> ClassificationParams:
    values: dict[str, Any] = tiny_params().model_dump()
    training = {"labelled_epochs": 1, "transfer_epochs": 0.5, "learning_rate": 5.0e-3}
    values["rounds"] = {name: {"parent": "teacher", **training, **target} for name, target in rounds.items()}
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return check_params(values, "params.yaml")


def pruned(params: ClassificationParams, name: str, parent: Path, tokens: Path, families: Path, out: Path) -> dict[str, Any]:
    return prune.run(
        params,
        round=name,
        parent=parent,
        tokens=tokens,
        sets=families / "sets",
        teacher=families / "bert/teacher",
        out=out / name,
        planned=out / f"{name}.json",
        student_tokens=out / f"{name}-tokens",
    )


def test_no_round_and_no_budget_keeps_pieces_that_the_data_never_have(
    tiny_families: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, tokens = tiny_families / "bert/teacher", tiny_families / "bert/tokens"
    whole = read_config(teacher)["vocab_size"]
    asked, useful = whole - 1, whole - len(UNSEEN)
    next_round = {"parent": "r1", "vocabulary": asked - 1, **SHAPE, "layers": 1}
    params = params_of({"r1": {"vocabulary": asked, **SHAPE}, "r2": next_round, "r3": {"ratio": 1.001}})
    facts = pruned(params, "r1", teacher, tokens, tiny_families, tmp_path)
    plan = read_json(tmp_path / "r1/plan.json")
    kept = pieces_in_order(read_json(tmp_path / "r1/model/tokenizer.json"))
    assert set(pieces_in_order(read_json(teacher / "tokenizer.json"))) - set(kept) == UNSEEN
    assert facts["shape_after"] == plan["shape_after"] == {"vocabulary": useful, **SHAPE}
    assert (plan["vocabulary_asked"], read_config(tmp_path / "r1/model")["vocab_size"]) == (asked, useful)
    assert f"r1: vocabulary: {asked} asked, {useful} kept: no other piece occurs" in "".join(capsys.readouterr())
    before, after = (load_tokens(place / "train").ids for place in (tokens, tmp_path / "r1-tokens"))
    assert np.array_equal(np.array(plan["keep"]["vocabulary"])[after], before), "the texts are cut as before"

    facts = pruned(params, "r2", tmp_path / "r1/model", tmp_path / "r1-tokens", tiny_families, tmp_path)
    assert facts["shape_after"] == {"vocabulary": useful, **SHAPE, "layers": 1}
    assert read_json(tmp_path / "r2/plan.json")["vocabulary_asked"] == asked - 1, "its parent has fewer"

    facts = pruned(params, "r3", teacher, tokens, tiny_families, tmp_path)
    assert facts["shape_after"] == {**facts["shape_before"], "vocabulary": useful}, "the budget leaves all else"
