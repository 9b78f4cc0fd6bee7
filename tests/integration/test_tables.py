"""A cell of the tables on a tiny run: pruned and recovered by the stages, from the rows chosen, the workspace untouched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from tasks.errors import UserError
from tasks.files import digest
from tasks.models.checkpoint import load_classifier, read_config
from tasks.params.file import check_params
from tasks.stages import teacher_logits
from tests.bench.tables import command, lab, rivals
from tests.bench.tables.cells import Cell
from tests.integration.tiny_run import tiny_params

TRANSFER = 30
SHAPE = {"vocabulary": 72, "hidden": 16, "heads": 2, "ffn": 24, "layers": 2}


@pytest.fixture(scope="module")
def workspace(tiny_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "project"
    artifacts = folder / "artifacts"
    values: dict[str, Any] = tiny_params().model_dump()
    values["data"]["max_tokens"] = 48
    values["distill"] |= {"batch_rows": 16}
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    params = check_params(values, "params.yaml")
    place = artifacts / "rounds" / "teacher"
    shutil.copytree(tiny_families / "bert" / "teacher", place / "trained" / "model")
    shutil.copytree(tiny_families / "bert" / "tokens", place / "tokens")
    shutil.copytree(tiny_families / "sets", artifacts / "data" / "sets")
    teacher_logits.run(
        params,
        teacher=place / "trained" / "model",
        sets=artifacts / "data" / "sets",
        tokens=place / "tokens",
        out=artifacts / "teacher_logits",
    )
    YAML().dump(values, folder / "params.yaml")
    return folder


def test_cells_share_rows_and_shape_and_leave_the_workspace_alone(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {
        ("shape", "activation"): Cell({**SHAPE, "criterion": "activation"}, learning_rate=5.0e-3),
        ("shape", "random init"): Cell({**SHAPE, "criterion": "activation"}, start="random", learning_rate=5.0e-3),
        ("shape", "ce"): Cell({**SHAPE, "criterion": "activation"}, loss="ce", learning_rate=5.0e-3),
        ("shape", "labels"): Cell({**SHAPE, "criterion": "activation"}, loss="labels", learning_rate=5.0e-3),
    }
    monkeypatch.setitem(command.TABLES, "curves", lambda: cells)
    before = digest(workspace)["sha256"]
    found = command.measure("curves", workspace, tmp_path, TRANSFER)
    assert digest(workspace)["sha256"] == before
    facts = list(found["cells"].values())
    steps = -(-(200 + TRANSFER) // 16)
    assert [one["steps"] for one in facts] == [steps, steps, steps, -(-200 // 16)]
    assert {one["params_total"] for one in facts} == {facts[0]["params_total"]}
    assert all(one["shape"] == SHAPE and len(one["right"]["imdb"]) == 40 for one in facts)
    assert facts[0]["before"] == facts[2]["before"] != facts[1]["before"]
    assert facts[0]["validation_kl_nats_per_example"] < facts[0]["before"]["validation_kl_nats_per_example"]
    assert (tmp_path / "curves.md").read_text() == found["markdown"]
    assert (tmp_path / "curves.svg").exists()
    monkeypatch.setattr(lab, "measure_cell", None)  # nothing is measured twice
    assert command.measure("curves", workspace, tmp_path, TRANSFER) == found


def test_a_cell_that_keeps_the_vocabulary_learns_from_the_chosen_rows_too(workspace: Path, tmp_path: Path) -> None:
    opened = lab.open_lab(workspace, tmp_path, TRANSFER)
    whole = read_config(opened.teacher)["vocab_size"]
    facts = lab.measure_cell(opened, Cell({**SHAPE, "vocabulary": whole, "criterion": "activation"}))
    assert (facts["shape"]["vocabulary"], facts["steps"]) == (whole, -(-(200 + TRANSFER) // 16))


def test_labels_of_transfer_rows_are_the_teachers_choices_and_their_logits_are_cut_alike(workspace: Path, tmp_path: Path) -> None:
    opened = lab.open_lab(workspace, tmp_path, TRANSFER)
    plain, chosen = (pd.read_parquet(opened.data / name / "transfer.parquet").set_index("row_id") for name in ("sets", "sets_ce"))
    assert len(plain) == TRANSFER
    assert (plain["label"] == -1).all()
    every = pd.read_parquet(workspace / "artifacts/data/sets/transfer.parquet")
    places = [every["row_id"].tolist().index(row) for row in plain.index]
    assert places == sorted(places)
    logits = np.load(workspace / "artifacts/teacher_logits/transfer.npy")[places]
    assert np.array_equal(np.load(opened.data / "logits" / "transfer.npy"), logits)
    assert chosen["label"].tolist() == logits.argmax(axis=1).tolist()


def test_results_inside_the_workspace_are_refused(workspace: Path) -> None:
    with pytest.raises(UserError, match="inside the workspace"):
        command.measure("curves", workspace, workspace / "tables", TRANSFER)


def test_groups_that_are_not_there_are_refused(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only 3x: no such cells in criteria; there are 2x, 4x, 8x"):
        command.measure("criteria", workspace, tmp_path, TRANSFER, ["8x", "3x"])


def test_weights_narrower_than_a_config_can_say_compute_what_the_whole_does_with_the_rest_at_zero(tiny_families: Path) -> None:
    folder = tiny_families / "bert" / "teacher"
    whole, config = load_classifier(folder), read_config(folder)
    size = config["hidden_size"] // config["num_attention_heads"]
    layer = whole.bert.encoder.layer[1]
    weights = {name: value.clone() for name, value in whole.state_dict().items()}
    place = "bert.encoder.layer.1"
    with torch.no_grad():  # the second layer loses its first head and its first three neurons
        layer.attention.output.dense.weight[:, :size] = 0.0
        layer.output.dense.weight[:, :3] = 0.0
    for name in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            weights[f"{place}.attention.self.{name}.{kind}"] = weights[f"{place}.attention.self.{name}.{kind}"][size:]
    weights[f"{place}.attention.output.dense.weight"] = weights[f"{place}.attention.output.dense.weight"][:, size:]
    for kind in ("weight", "bias"):
        weights[f"{place}.intermediate.dense.{kind}"] = weights[f"{place}.intermediate.dense.{kind}"][3:]
    weights[f"{place}.output.dense.weight"] = weights[f"{place}.output.dense.weight"][:, 3:]
    narrow = rivals.shaped(config, weights)
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(narrow(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert narrow.num_parameters() < whole.num_parameters()
