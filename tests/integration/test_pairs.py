"""Pairs of texts on a tiny BERT with token types, from the file to the report, and in every form in which a model leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tasks.data import classification as rows
from tasks.data.frames import cleaned_rows, read_sets, write_sets
from tasks.data.pairs import texts_of
from tasks.data.tokens import load_tokens, tokenize
from tasks.exports.onnx import OnnxClassifier
from tasks.files import read_json, write_json
from tasks.measuring.quality import log_softmax
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.models.predict import inputs_of, predict_logits
from tasks.params.classification import ClassificationParams
from tasks.promotion.golden import answered, asked_of, golden_rows
from tasks.registry.served_pairs import PairClassifier
from tasks.stages import baselines, distill, evaluate, export, gate, prune, teacher, teacher_logits
from tests.once import made_once
from tests.paired import pair_params, pair_rows, write_pairs

CPU = pick("cpu", "fp32", 1)


def prepare(folder: Path, base: Path) -> ClassificationParams:
    """Write what the stages before the teacher leave, and return the params of the run."""
    params = pair_params(write_pairs(folder / "data" / "rows.csv"))
    data = params.data.model_dump()
    checked = rows.checked(folder / "data", data, params.validate_data.model_dump())
    problems = [problem for _, checks in checked.suites.values() for check in checks for problem in check.problems]
    assert [*problems, *checked.problems] == []
    frames = rows.sets_of(folder / "data", data)
    write_sets(frames, folder / "sets")
    described = rows.save_set_tokens(frames, base / "tokenizer.json", params.data.max_tokens, folder / "tokens")
    found = [{"name": check.name, "success": True} for _, checks in checked.suites.values() for check in checks]
    write_json(folder / "validation.json", {"success": True, "expectations": found, "sha256": checked.sha256, "file": "rows.csv"})
    write_json(folder / "summary.json", {"sha256": checked.sha256, "sets": described})
    return params


def train(folder: Path, base: Path) -> None:
    """Run the stages from the checks of the data to the student."""
    params, sets, tokens = prepare(folder, base), folder / "sets", folder / "tokens"
    teacher.check(params, base)
    teacher.run(params, base=base, sets=sets, tokens=tokens, out=folder / "teacher")
    model = folder / "teacher" / "model"
    teacher_logits.run(params, teacher=model, sets=sets, tokens=tokens, out=folder / "logits")
    places = {"parent": model, "tokens": tokens, "sets": sets, "teacher": base, "out": folder / "pruned"}
    own, planned = folder / "r1" / "tokens", folder / "search" / "planned.json"
    prune.run(params, round="r1", planned=planned, student_tokens=own, **places)
    places = {"pruned": folder / "pruned", "search": folder / "search", "tokens": own, "sets": sets}
    distill.run(params, round="r1", logits=folder / "logits", teacher=model, out=folder / "r1" / "trained", **places)


def measure(folder: Path) -> None:
    """Run the stages from the exports to the verdict."""
    params = pair_params(folder / "data" / "rows.csv")
    sets, model, student = folder / "sets", folder / "teacher" / "model", folder / "r1" / "trained" / "model"
    export.run(params, model=model, sets=sets, out=folder / "teacher_exported")
    export.run(params, model=student, sets=sets, out=folder / "r1" / "exported")
    beside = {"teacher": model, "teacher_exported": folder / "teacher_exported", "sets": sets}
    places = {"exported": folder / "teacher_exported", "tokens": folder / "tokens", "out": folder / "teacher_evaluated"}
    evaluate.run(params, round="teacher", model=model, **beside, **places)
    places = {"exported": folder / "r1" / "exported", "tokens": folder / "r1" / "tokens", "out": folder / "r1" / "evaluated"}
    evaluate.run(params, round="r1", model=student, teacher_evaluated=folder / "teacher_evaluated", **beside, **places)
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
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages have run up to the student."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # scratches of unfinished training stand below the workspace
            (folder / "data").mkdir()
            train(folder, tiny_model)

    return made_once(tmp_path_factory, "pairs", make)


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run."""

    def make(folder: Path) -> None:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        measure(folder)

    return made_once(tmp_path_factory, "measured_pairs", make)


def test_the_sets_are_pairs_and_no_group_is_learnt_from_and_measured(trained: Path) -> None:
    names = ["train", "validation", "test", "transfer", "abroad", "test_typos", "calibration"]
    sets = read_sets(trained / "sets", names)
    for name, frame in sets.items():
        assert list(frame) == ["row_id", "text", "label", "source", "text_pair", "group"], name
    learnt, held = (
        set(pd.concat([sets[name] for name in chosen])["group"])
        for chosen in (("train", "transfer"), ("validation", "test", "abroad"))
    )
    assert not learnt & held
    made = sets["transfer"]
    assert (made["source"] == "spliced").sum() == 60
    assert not set(made["row_id"]) & set(sets["train"]["row_id"])


def test_the_student_reads_types_that_its_own_tokens_have(trained: Path) -> None:
    for name in ("train", "transfer", "test", "calibration"):
        tokens = load_tokens(trained / "r1" / "tokens" / name)
        assert tokens.types is not None
        assert len(tokens.types) == len(tokens.ids)
        assert set(np.asarray(tokens.types).tolist()) == {0, 1}
    # The row of the second text is moved by training alone if the student is shown types.
    rows = [
        load_file(trained / place / "model/model.safetensors")["bert.embeddings.token_type_embeddings.weight"]
        for place in ("pruned", "r1/trained")
    ]
    assert not torch.equal(rows[0][1], rows[1][1])


def test_types_change_the_answers_of_every_exported_form(tiny_model: Path, tmp_path: Path) -> None:
    frame = cleaned_rows(pd.DataFrame(pair_rows(12)).rename(columns={"a": "text", "b": "text_pair"}).assign(group=""))
    write_sets({"validation": frame}, tmp_path / "sets")
    params = pair_params(write_pairs(tmp_path / "rows.csv"))
    parity = export.run(params, model=tiny_model, sets=tmp_path / "sets", out=tmp_path / "out")
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["golden_max_difference"] <= 1e-4
    assert parity["onnx_max_difference"] <= 1e-4
    classifier, session = load_classifier(tiny_model), OnnxClassifier(tmp_path / "out" / "model.onnx", 1)
    tokens = tokenize(texts_of(frame), tiny_model / "tokenizer.json", 40)
    right, inputs = predict_logits(classifier, tokens, 8, CPU), inputs_of(classifier, tokens, np.arange(len(tokens)))
    ids, mask = (inputs[name] for name in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        without = classifier(input_ids=ids, attention_mask=mask).logits.numpy()
    assert np.abs(right - without).max() > 1e-2, "the test needs a pair whose types matter"
    np.testing.assert_allclose(session.predict(tokens, 8), right, atol=1e-4)
    np.testing.assert_allclose(session.logits(ids.numpy(), mask.numpy()), without, atol=1e-4)
    int8 = OnnxClassifier(tmp_path / "out" / "model.int8.onnx", 1)
    assert int8.reads_types
    rows, atol = golden_rows(read_json(tmp_path / "out" / "golden.json")) or ([], 0.0)
    assert len(rows) == 8
    assert all(isinstance(pair, tuple) and all(pair) for pair in asked_of(rows))
    served = PairClassifier()
    served.load_context(SimpleNamespace(artifacts={"model": str(tiny_model)}))
    given = served.predict(None, pd.DataFrame(asked_of(rows), columns=["text", "text_pair"])).to_dict("records")
    assert answered(rows, given, atol).result == "pass"
    turned = pd.DataFrame([(second, first) for first, second in asked_of(rows)], columns=["text", "text_pair"])
    assert answered(rows, served.predict(None, turned).to_dict("records"), atol).result == "fail"


@pytest.mark.slow  # quick: the parts above
def test_the_verdict_is_reached_on_every_form(measured: Path) -> None:
    verdict = read_json(measured / "verdict.json")
    assert verdict["verdict"] == "pass", [rule["sentence"] for rule in verdict["rules"]]


@pytest.mark.slow  # quick: property/test_paired_rows
def test_order_and_the_second_text_alone_are_measured(measured: Path) -> None:
    quality: dict[str, Any] = read_json(measured / "r1" / "evaluated" / "quality.json")["sets"]
    swapped = quality["test"]["variants"]["swapped"]
    assert 0.0 < swapped["order_sensitivity"]["value"] <= 1.0
    assert {"second:short", "overlap:high", "negation"} < set(quality["test"]["slices"])
    rivals = read_json(measured / "baselines" / "quality.json")["rivals"]
    assert set(rivals) == {"tfidf_logistic", "second_text_alone"}
    told = pd.read_parquet(measured / "r1" / "evaluated" / "predictions" / "test.parquet")
    own = np.exp(log_softmax(told[["logit_0", "logit_1"]].to_numpy()))
    moved = np.abs(own - told[["swapped_0", "swapped_1"]].to_numpy()).sum(axis=1) / 2
    assert swapped["order_sensitivity"]["value"] == pytest.approx(float(moved.mean()), abs=1e-5)
