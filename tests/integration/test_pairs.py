"""Pairs of texts on a tiny BERT with token types, from the file to the report, and in every form in which a model leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.data import classification as rows
from tasks.data.frames import read_sets, write_sets
from tasks.data.pairs import texts_of
from tasks.data.tokens import load_tokens, tokenize
from tasks.exports.onnx import OnnxClassifier
from tasks.files import read_json, write_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.models.predict import inputs_of, predict_logits
from tasks.stages import baselines, distill, evaluate, export, gate, prune, teacher, teacher_logits
from tests.once import made_once
from tests.paired import pair_params, write_pairs

CPU = pick("cpu", "fp32", 1)


def run_stages(folder: Path, base: Path) -> None:
    """Run every stage but those that need a package's data or a page, in this process."""
    params = pair_params(write_pairs(folder / "data" / "rows.csv"))
    data, sets, tokens = params.data.model_dump(), folder / "sets", folder / "tokens"
    checked = rows.checked(folder / "data", data, params.validate_data.model_dump())
    problems = [problem for _, checks in checked.suites.values() for check in checks for problem in check.problems]
    assert not problems
    assert not checked.problems
    frames = rows.sets_of(folder / "data", data)
    write_sets(frames, sets)
    described = rows.save_set_tokens(frames, base / "tokenizer.json", params.data.max_tokens, tokens)
    found = [{"name": check.name, "success": True} for _, checks in checked.suites.values() for check in checks]
    write_json(folder / "validation.json", {"success": True, "expectations": found, "sha256": checked.sha256, "file": "rows.csv"})
    write_json(folder / "summary.json", {"sha256": checked.sha256, "sets": described})
    teacher.run(params, base=base, sets=sets, tokens=tokens, out=folder / "teacher")
    model = folder / "teacher" / "model"
    teacher_logits.run(params, teacher=model, sets=sets, tokens=tokens, out=folder / "logits")
    export.run(params, model=model, sets=sets, out=folder / "teacher_exported")
    own = folder / "r1" / "tokens"
    planned = folder / "search" / "planned.json"
    places = {"parent": model, "tokens": tokens, "sets": sets, "teacher": base, "out": folder / "pruned"}
    prune.run(params, round="r1", planned=planned, student_tokens=own, **places)
    places = {"pruned": folder / "pruned", "search": folder / "search", "tokens": own, "sets": sets}
    distill.run(params, round="r1", logits=folder / "logits", teacher=model, out=folder / "r1" / "trained", **places)
    student = folder / "r1" / "trained" / "model"
    export.run(params, model=student, sets=sets, out=folder / "r1" / "exported")
    exported = {"teacher": model, "teacher_exported": folder / "teacher_exported", "sets": sets}
    places = {"model": model, "exported": folder / "teacher_exported", "tokens": tokens, "out": folder / "teacher_evaluated"}
    evaluate.run(params, round="teacher", **exported, **places)
    places = {"model": student, "exported": folder / "r1" / "exported", "tokens": own, "out": folder / "r1" / "evaluated"}
    evaluate.run(params, round="r1", teacher_evaluated=folder / "teacher_evaluated", **exported, **places)
    (folder / "baselines").mkdir()
    baselines.run(params, sets=sets, out=folder / "baselines")
    gate.run(
        params,
        round="r1",
        evaluated=folder / "r1" / "evaluated",
        exported=folder / "r1" / "exported",
        teacher=folder / "teacher_evaluated",
        parent=folder / "teacher_evaluated",
        baselines=folder / "baselines",
        validation=folder / "validation.json",
        data=folder / "summary.json",
        sets=sets,
        out=folder / "verdict.json",
    )


@pytest.fixture(scope="module")
def ran(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages have run."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # scratches of unfinished training stand below the workspace
            (folder / "data").mkdir()
            run_stages(folder, tiny_model)

    return made_once(tmp_path_factory, "pairs", make)


def test_the_sets_are_pairs_and_no_group_is_learnt_from_and_measured(ran: Path) -> None:
    names = ["train", "validation", "test", "transfer", "abroad", "test_typos", "calibration"]
    sets = read_sets(ran / "sets", names)
    for name, frame in sets.items():
        assert list(frame) == ["row_id", "text", "label", "source", "text_pair", "group"], name
    learnt, measured = (
        set(pd.concat([sets[name] for name in chosen])["group"])
        for chosen in (("train", "transfer"), ("validation", "test", "abroad"))
    )
    assert not learnt & measured
    made = sets["transfer"]
    assert (made["source"] == "spliced").sum() == 60
    assert not set(made["row_id"]) & set(sets["train"]["row_id"])


def test_the_verdict_is_reached_on_every_form(ran: Path) -> None:
    verdict = read_json(ran / "verdict.json")
    assert verdict["verdict"] == "pass", verdict
    parity = read_json(ran / "r1" / "exported" / "parity.json")
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["golden_max_difference"] <= 1e-4
    assert parity["onnx_max_difference"] <= 1e-4


def test_types_change_the_answers_of_every_form(ran: Path) -> None:
    frame = read_sets(ran / "sets", ["test"])["test"]
    for model, exported in ((ran / "teacher/model", ran / "teacher_exported"), (ran / "r1/trained/model", ran / "r1/exported")):
        classifier, session = load_classifier(model), OnnxClassifier(exported / "model.onnx", 1)
        tokens = tokenize(texts_of(frame), model / "tokenizer.json", 40)
        right = predict_logits(classifier, tokens, 8, CPU)
        inputs = inputs_of(classifier, tokens, np.arange(len(tokens)))
        with torch.inference_mode():
            without = classifier(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.numpy()
        assert np.abs(right - without).max() > 1e-2, "the test needs a pair whose types matter"
        assert session.reads_types
        np.testing.assert_allclose(session.predict(tokens, 8), right, atol=1e-4)
        ids, mask = (inputs[name].numpy() for name in ("input_ids", "attention_mask"))
        np.testing.assert_allclose(session.logits(ids, mask), without, atol=1e-4)
        golden = read_json(exported / "golden.json")
        assert all(row["text_pair"] for row in golden["rows"])
        pairs = [(row["text"], row["text_pair"]) for row in golden["rows"]]
        found = predict_logits(classifier, tokenize(pairs, model / "tokenizer.json", 40), 1, CPU)
        np.testing.assert_allclose(found, [row["logits"] for row in golden["rows"]], atol=golden["atol"])


def test_the_students_tokens_have_types(ran: Path) -> None:
    for name in ("train", "transfer", "test", "calibration"):
        tokens = load_tokens(ran / "r1" / "tokens" / name)
        assert tokens.types is not None
        assert len(tokens.types) == len(tokens.ids)
        assert set(np.asarray(tokens.types).tolist()) == {0, 1}


def test_order_and_the_second_text_alone_are_measured(ran: Path) -> None:
    quality: dict[str, Any] = read_json(ran / "r1" / "evaluated" / "quality.json")["sets"]
    swapped = quality["test"]["variants"]["swapped"]
    assert 0.0 < swapped["order_sensitivity"]["value"] <= 1.0
    assert {"second:short", "overlap:high", "negation"} < set(quality["test"]["slices"])
    rivals = read_json(ran / "baselines" / "quality.json")["rivals"]
    assert set(rivals) == {"tfidf_logistic", "second_text_alone"}
    rows = pd.read_parquet(ran / "r1" / "evaluated" / "predictions" / "test.parquet")
    moved = sum(
        (np.exp(rows[f"logit_{c}"]) / sum(np.exp(rows[f"logit_{k}"]) for k in (0, 1)) - rows[f"swapped_{c}"]).abs()
        for c in (0, 1)
    )
    assert swapped["order_sensitivity"]["value"] == pytest.approx(float(moved.mean() / 2), abs=1e-5)
