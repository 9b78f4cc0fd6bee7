"""The measuring stages on a tiny model: what they write is what docs/artifacts.md says, and they repeat themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.data.frames import rows_sha256
from tasks.data.tokens import save_tokens, tokenize
from tasks.errors import StageError
from tasks.files import file_sha256, read_json
from tasks.measuring import quality
from tasks.measuring.predictions import of_teacher
from tasks.models.checkpoint import load_classifier
from tasks.stages import baselines, evaluate
from tests.integration.tiny_run import tiny_params, write_tiny_sets

METRICS = {"accuracy", "macro_f1", "nll_nats_per_example", "calibration_error", "agreement"}
SETS = ("validation", "test", "imdb", "test_typos")


@pytest.fixture(scope="module")
def place(tiny_model: Path, tiny_exported: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sets, exports, tokens of one set, and the evaluations of teacher and (equal) student."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_tiny_sets(folder / "sets")
    shutil.copytree(tiny_exported[0], folder / "exported")
    texts = pd.read_parquet(folder / "sets" / "test.parquet")["text"].tolist()
    save_tokens(tokenize(texts, tiny_model / "tokenizer.json", 32), folder / "tokens" / "test")
    run(folder, tiny_model, "teacher")
    run(folder, tiny_model, "r1", teacher_evaluated=folder / "teacher")
    return folder


def run(folder: Path, model: Path, name: str, **more: Path) -> dict:
    return evaluate.run(
        tiny_params(),
        round=name,
        model=model,
        exported=folder / "exported",
        sets=folder / "sets",
        tokens=folder / "tokens",
        teacher=model,
        teacher_exported=folder / "exported",
        out=folder / name,
        **more,
    )


def test_quality_holds_every_set_slice_and_metric(place, tiny_model):
    found = read_json(place / "r1" / "quality.json")
    assert found["round"] == "r1"
    assert found["model_sha256"] == file_sha256(tiny_model / "model.safetensors")
    assert set(found["sets"]) == set(SETS)
    for name in SETS:
        frame, entry = pd.read_parquet(place / "sets" / f"{name}.parquet"), found["sets"][name]
        assert entry["rows"] == len(frame)
        assert entry["rows_sha256"] == rows_sha256(frame["row_id"])
        assert {"class:negative", "class:positive", "length:short", "tokens:rare", "negation"} < set(entry["slices"])
        for part in entry["slices"].values():
            assert set(part) == ({"support", *METRICS} if part["support"] else {"support"})
        assert entry["slices"]["overall"]["support"] == len(frame)
        assert entry["slices"]["overall"]["agreement"]["value"] == 1.0
    rows = pd.read_parquet(place / "r1" / "predictions" / "test.parquet")
    int8 = found["sets"]["test"]["variants"]["onnx_int8"]
    assert set(int8) == {"accuracy", "accuracy_ratio", "agreement", "agreement_fp32"}
    assert int8["accuracy"]["value"] == pytest.approx((rows["prediction_int8"] == rows["label"]).mean(), abs=1e-6)
    same = (rows["prediction_int8"] == rows["prediction"]).mean()
    assert int8["agreement_fp32"]["value"] == pytest.approx(same, abs=1e-6)
    assert int8["agreement"] == int8["accuracy_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}, "its own teacher"


def test_quality_follows_from_the_predictions(place):
    found = read_json(place / "r1" / "quality.json")
    for name in SETS:
        rows = pd.read_parquet(place / "r1" / "predictions" / f"{name}.parquet")
        logits = rows[["logit_0", "logit_1"]].to_numpy()
        assert logits.dtype == np.float32
        assert (logits.argmax(1) == rows["prediction"]).all()
        for slice_name, part in found["sets"][name]["slices"].items():
            mask = np.array([slice_name == "overall" or slice_name in row for row in rows["slices"]])
            assert part["support"] == mask.sum()
            if mask.any():
                nll = quality.nll_nats_per_example(logits[mask], rows["label"].to_numpy()[mask])
                assert part["nll_nats_per_example"]["value"] == pytest.approx(nll, abs=1e-6)


def test_cost_holds_every_number(place, tiny_model):
    found = read_json(place / "r1" / "cost.json")
    assert found["params_total"] == load_classifier(tiny_model).num_parameters()
    assert found["size_bytes"] == (tiny_model / "model.safetensors").stat().st_size
    assert found["size_bytes_onnx"] == (place / "exported" / "model.onnx").stat().st_size
    assert (found["flops_tokens"], found["threads"]) == (8, 1)
    assert found["peak_memory_bytes"] > 4 * found["params_total"]
    assert set(found["latency"]) == {"torch", "onnx", "onnx_int8"}
    for by_batch in found["latency"].values():
        assert set(by_batch) == {"1", "4"}
        for record in by_batch.values():
            assert 0 < record["latency_ms_p50"] <= record["latency_ms_p95"]
            assert 0.1 < record["ratio_p50"] < 10  # the same model twice


def test_the_quality_and_predictions_of_two_evaluations_are_the_same_bytes(place, tiny_model):
    run(place, tiny_model, "again", teacher_evaluated=place / "teacher")
    first, second = (read_json(place / name / "quality.json") for name in ("r1", "again"))
    assert {**first, "round": "again"} == second
    for name in SETS:
        shas = [file_sha256(place / who / "predictions" / f"{name}.parquet") for who in ("r1", "again")]
        assert shas[0] == shas[1]


def test_predictions_of_other_rows_are_refused(place):
    frame = pd.read_parquet(place / "sets" / "test.parquet").iloc[::-1]
    with pytest.raises(StageError, match="evaluate the teacher again"):
        of_teacher(place / "teacher", "test", frame, ("row_id", "prediction"))


def test_baselines_learn_and_repeat(place):
    facts = baselines.run(tiny_params(), sets=place / "sets", out=place / "baselines")
    found = read_json(place / "baselines" / "quality.json")["rivals"]["tfidf_logistic"]["sets"]
    assert set(found) == set(SETS)
    overall = found["test"]["slices"]["overall"]
    assert set(overall) == {"support", *METRICS} - {"agreement"}
    assert overall["accuracy"]["value"] == facts["rivals"]["tfidf_logistic"]["test_accuracy"] > 0.9
    rows = pd.read_parquet(place / "baselines" / "predictions" / "tfidf_logistic" / "test.parquet")
    assert np.exp(rows[["logit_0", "logit_1"]].to_numpy()).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    baselines.run(tiny_params(), sets=place / "sets", out=place / "again_baselines")
    assert file_sha256(place / "baselines" / "quality.json") == file_sha256(place / "again_baselines" / "quality.json")


def test_sets_without_labels_are_measured_beside_the_teacher(place):
    teacher, found = (read_json(place / name / "quality.json")["unlabelled"] for name in ("teacher", "r1"))
    assert set(found) == {"stress_posts", "changed_validation"}
    posts, changed = found["stress_posts"]["slices"], found["changed_validation"]["slices"]
    assert {"overall", "teacher:negative", "length:short", "tokens:rare"} <= set(posts)
    assert set(changed) == {"as_written", "change:handles", "change:emails"}
    assert posts["overall"]["agreement"]["value"] == 1.0  # the student is the teacher
    assert posts["overall"]["agreement"]["low"] == pytest.approx(0.025 ** (1 / 30), abs=1e-6)
    assert changed["change:handles"]["response_gap"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert "response_gap" not in changed["as_written"]
    assert found["stress_posts"]["pieces"] == {"pieces_lost": 0.0, "tokens_ratio": 1.0}
    assert found == teacher
    for name, entry in found.items():
        frame = pd.read_parquet(place / "sets" / f"{name}.parquet")
        assert (entry["rows"], entry["rows_sha256"]) == (len(frame), rows_sha256(frame["row_id"]))
        assert pd.read_parquet(place / "r1/predictions" / f"{name}.parquet")["row_id"].tolist() == frame["row_id"].tolist()
