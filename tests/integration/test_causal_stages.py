"""A language model through every stage: a new teacher, two rounds, and a teacher with grouped queries taken as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.audit import causal_lm as rederive_causal
from tasks.audit import rederive
from tasks.data.blocks import load_blocks
from tasks.data.frames import read_sets
from tasks.data.segments import load_segments, save_segments, segments_of, windows_of
from tasks.data.vocabulary import kept_at_teacher, kept_ids
from tasks.errors import DataError
from tasks.exports.gguf import GGUF_FILE, gguf_refusal, splitting_of
from tasks.files import digest, file_sha256, read_json, write_json
from tasks.measuring.causal_lm import Reader
from tasks.measuring.predictions import SAMPLES, agreed_pieces
from tasks.models.checkpoint import load_causal_lm, save_causal_lm
from tasks.models.devices import Device
from tasks.models.predict import next_tokens, predicting
from tasks.params.causal_lm import CausalLMParams
from tasks.pruning.causal_lm import student_from_plan
from tasks.pruning.cut import write_tokenizer
from tasks.pruning.shapes import Plan
from tasks.registry.listing import list_models
from tasks.registry.publish import Publication
from tasks.registry.records import RoundFiles, quality_of
from tasks.registry.tracking import Tracker
from tasks.stages import (
    baselines,
    distill,
    evaluate,
    export,
    fetch,
    gate,
    prepare,
    prune,
    random_init,
    report,
    select,
    teacher,
    teacher_logits,
    validate_data,
)
from tasks.training.chunked_loss import Recipe, causal_loss
from tests.bench.tables import blocks
from tests.causal import ROUNDS, causal_params, config_of, tiny_values, write_decoder, write_documents
from tests.families import bytes_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # Great Expectations imports it


class Run:
    """The stages of a run below a folder, each called as dvc.yaml has it."""

    def __init__(self, params: CausalLMParams, folder: Path) -> None:
        self.params, self.workspace, self.artifacts = params, folder, folder / "artifacts"
        self.rounds, self.sets = self.artifacts / "rounds", self.artifacts / "data" / "sets"
        self.logits = self.artifacts / "teacher_logits"

    def to_teacher(self) -> Path:
        data, base, validation = (self.artifacts / name for name in ("fetched/data", "fetched/teacher", "validation"))
        fetch.run(self.params, lock=self.workspace / "sources.lock", data=data, teacher=base)
        validate_data.run(self.params, data=data, out=validation)
        prepare.run(
            self.params,
            data=data,
            teacher=base,
            validation=validation / "summary.json",
            sets=self.sets,
            summary=self.artifacts / "data" / "summary.json",
            tokens=self.rounds / "teacher" / "tokens",
        )
        place = self.rounds / "teacher"
        teacher.run(self.params, base=base, sets=self.sets, tokens=place / "tokens", out=place / "trained")
        model = place / "trained" / "model"
        teacher_logits.run(self.params, teacher=model, sets=self.sets, tokens=place / "tokens", out=self.logits)
        return model

    def prune(self, name: str) -> dict[str, Any]:
        parent = self.rounds / self.params.rounds[name].parent
        return prune.run(
            self.params,
            round=name,
            parent=parent / "trained" / "model",
            tokens=parent / "tokens",
            sets=self.sets,
            teacher=self.artifacts / "fetched/teacher",
            out=self.rounds / name / "pruned",
            planned=self.rounds / name / "search/planned.json",
            student_tokens=self.rounds / name / "tokens",
        )

    def distill(self, name: str) -> dict[str, Any]:
        place = self.rounds / name
        return distill.run(
            self.params,
            round=name,
            pruned=place / "pruned",
            search=place / "search",
            tokens=place / "tokens",
            sets=self.sets,
            logits=self.logits,
            teacher=self.rounds / "teacher" / "trained" / "model",
            out=place / "trained",
        )

    def measure(self, name: str) -> dict[str, Any]:
        place, first = self.rounds / name, self.rounds / "teacher"
        export.run(self.params, model=place / "trained" / "model", sets=self.sets, out=place / "exported")
        return evaluate.run(
            self.params,
            round=name,
            model=place / "trained" / "model",
            exported=place / "exported",
            sets=self.sets,
            tokens=place / "tokens",
            teacher=first / "trained" / "model",
            teacher_exported=first / "exported",
            out=place / "evaluated",
            teacher_evaluated=None if name == "teacher" else first / "evaluated",
        )

    def judge(self, name: str, evaluated: Path | None = None, out: Path | None = None) -> dict[str, Any]:
        place, at = self.rounds / name, self.artifacts
        return gate.run(
            self.params,
            round=name,
            evaluated=evaluated or place / "evaluated",
            exported=place / "exported",
            teacher=self.rounds / "teacher" / "evaluated",
            parent=self.rounds / self.params.rounds[name].parent / "evaluated",
            baselines=at / "baselines",
            validation=at / "validation/summary.json",
            data=at / "data/summary.json",
            sets=self.sets,
            out=out or place / "verdict.json",
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run of two rounds from a teacher trained on the spot; nothing may be changed in it."""
    folder = tmp_path_factory.mktemp("causal")
    write_documents(folder / "text")
    values = tiny_values(folder / "text")
    values["baselines"]["random_init"] = ["r2"]
    made = Run(causal_params(values), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # scratches of unfinished training stand below the workspace
        made.to_teacher()
        made.measure("teacher")
        baselines.run(made.params, sets=made.sets, out=made.artifacts / "baselines")
        for name in made.params.rounds:
            made.prune(name)
            made.distill(name)
            made.measure(name)
            made.judge(name)
        place = made.rounds / "r2"
        random_init.run(
            made.params,
            round="r2",
            pruned=place / "pruned",
            tokens=place / "tokens",
            sets=made.sets,
            logits=made.logits,
            teacher=made.rounds / "teacher/trained/model",
            teacher_evaluated=made.rounds / "teacher/evaluated",
            out=place / "random_init",
        )
        at = made.artifacts
        select.run(made.params, rounds=made.rounds, out=at / "selection.json")
        report.run(
            made.params,
            rounds=made.rounds,
            baselines=at / "baselines",
            validation=at / "validation/summary.json",
            selection=at / "selection.json",
            data=at / "data/summary.json",
            sets=made.sets,
            out=at / "report.html",
        )
    return made


def overall(run: Run, name: str, set_name: str) -> dict[str, Any]:
    return read_json(run.rounds / name / "evaluated/quality.json")["sets"][set_name]["slices"]["overall"]


def test_documents_go_into_sets_by_hash_and_into_blocks(run: Run) -> None:
    frames = {path.stem: pd.read_parquet(path) for path in run.sets.glob("*.parquet")}
    assert set(frames) == {"train", "validation", "test", "news"}
    ids = [row for frame in frames.values() for row in frame["row_id"]]
    assert len(ids) == len(set(ids))
    assert set(frames["train"]["source"]) == {"home"}
    assert frames["news"]["text"].str.contains("£3").sum() == 1, "an old file is read as cp1252"
    tokens = run.rounds / "teacher" / "tokens"
    for name, frame in {**frames, "calibration": frames["train"]}.items():
        blocks = load_blocks(tokens, name)
        assert blocks.shape[1] == 32
        assert len(frame)
    assert (load_blocks(tokens, "calibration") == load_blocks(tokens, "train")[:16]).all()


def test_distillation_brings_a_student_near_its_teacher(run: Run) -> None:
    assert overall(run, "teacher", "test")["perplexity"]["value"] < 120, "of 320 pieces"
    assert overall(run, "teacher", "test")["perplexity_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert overall(run, "teacher", "news")["perplexity"]["value"] > overall(run, "teacher", "test")["perplexity"]["value"]
    for name in ("r1", "r2"):
        found = overall(run, name, "test")
        assert found["perplexity"]["low"] <= found["perplexity"]["value"] <= found["perplexity"]["high"]
        teacher = overall(run, "teacher", "test")["perplexity"]["value"]
        assert found["perplexity_ratio"]["value"] == pytest.approx(found["perplexity"]["value"] / teacher, rel=1e-4)
        summary = read_json(run.rounds / name / "trained/summary.json")
        values = [one["validation_nll_nats_per_token"] for one in summary["checkpoints"]]
        assert summary["best_validation_nll_nats_per_token"] == min(values)
        assert read_json(run.rounds / name / "pruned/plan.json")["shape_after"]["vocabulary"] == 320


def test_the_curves_of_the_benchmark_share_shape_and_steps(run: Run, tmp_path: Path) -> None:
    lab = blocks.BlockLab(run.params, run.artifacts, tmp_path, blocks=24)
    found = {key: blocks.measure_cell(lab, cell) for key, cell in blocks.cells_of(run.params, run.artifacts).items()}
    assert {one["steps"] for one in found.values()} == {3}
    assert {one["params_total"] for one in found.values()} == {next(iter(found.values()))["params_total"]}
    pruned, _, fresh, plain = found.values()
    assert pruned["before"] == plain["before"] != fresh["before"]
    assert pruned["curve"] != plain["curve"]
    assert len(pruned["nats"]["news"]) == 8
    lines = blocks.written(found, run.params.seed).splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("| perplexity on test (nats a token) | perplexity on news (nats a token) |")


def test_every_model_loads_with_the_stock_class_and_generates_the_same_with_and_without_cache(run: Run) -> None:
    for name in ("teacher", "r1", "r2"):
        parity = read_json(run.rounds / name / "exported/parity.json")
        assert parity["load_back_max_difference"] <= 1e-5
        assert parity["cache_mismatched_tokens"] == 0
        assert parity["generated_tokens"] == 16 * parity["rows"]
        assert parity["gguf_not_written"].startswith("of model_type 'gpt2'")
        stock = AutoModelForCausalLM.from_pretrained(run.rounds / name / "trained/model")
        assert stock.num_parameters() == read_json(run.rounds / name / "evaluated/cost.json")["params_total"]


def test_perplexity_follows_from_the_stored_blocks(run: Run) -> None:
    rows = pd.read_parquet(run.rounds / "r2" / "evaluated/predictions/test.parquet")
    theirs = pd.read_parquet(run.rounds / "teacher" / "evaluated/predictions/test.parquet")
    found = overall(run, "r2", "test")
    nats = rows["nll_nats"].sum() / rows["tokens"].sum()
    assert found["nll_nats_per_token"]["value"] == pytest.approx(nats, abs=1e-6)
    assert found["perplexity"]["value"] == pytest.approx(np.exp(nats), rel=1e-6)
    same = sum((a == b).sum() for a, b in zip(rows["choices"], theirs["choices"], strict=True))
    assert found["agreement"]["value"] == pytest.approx(same / rows["tokens"].sum(), abs=1e-6)


def test_the_verdict_the_choice_and_the_report(run: Run) -> None:
    verdict = read_json(run.rounds / "r2" / "verdict.json")
    assert [rule["result"] for rule in verdict["rules"]] == ["pass"] * len(run.params.gates)
    assert "of the teacher's" in verdict["rules"][0]["sentence"]
    assert read_json(run.artifacts / "selection.json")["selected"] == "r2"
    page = (run.artifacts / "report.html").read_text()
    assert "times its perplexity on test" in page
    assert "random start" in page
    assert "tokens a second, batch 2" in page


@pytest.mark.parametrize("tamper", ["nll", "rows", "missing"])
def test_a_changed_prediction_is_held(run: Run, tmp_path: Path, tamper: str) -> None:
    evaluated = tmp_path / "evaluated"
    (evaluated / "predictions").mkdir(parents=True)
    source = run.rounds / "r2" / "evaluated"
    for name in ("quality.json", "cost.json"):
        write_json(evaluated / name, read_json(source / name))
    if tamper != "missing":
        rows = pd.read_parquet(source / "predictions/test.parquet")
        changed = {"nll": rows.assign(nll_nats=rows["nll_nats"] * 0.5), "rows": rows.iloc[1:]}[tamper]
        changed.to_parquet(evaluated / "predictions/test.parquet")
    run.judge("r2", evaluated, tmp_path / "verdict.json")
    first = read_json(tmp_path / "verdict.json")["rules"][0]
    assert first["result"] == "hold"
    assert "cannot be decided" in first["sentence"]


def faults(run: Run, view: Path) -> list[str]:
    """Return the names of what an audit finds wrong with the last round when it derives it again from these files."""
    params = run.params.model_dump(mode="json")
    found = [*rederive_causal.pruned(view, "r2", "r1"), *rederive.best_checkpoint(view, "r2")]
    found += rederive_causal.measured(view, params, "r2")
    return sorted({one.name for one in found})


def test_weights_and_numbers_are_derived_again_from_the_stored_files(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.artifacts, tmp_path / "artifacts")
    assert faults(run, tmp_path) == []
    params = run.params.model_dump(mode="json")
    assert rederive_causal.measured(tmp_path, params, "teacher") == []

    place = tmp_path / "artifacts/rounds/r2"
    samples = pd.read_parquet(place / f"evaluated/predictions/{SAMPLES}.parquet")
    edited = samples.assign(sample=[np.arange(12)] * len(samples))
    edited.to_parquet(place / f"evaluated/predictions/{SAMPLES}.parquet")
    assert faults(run, tmp_path) == ["metrics"], "texts that repeat nothing"
    samples.to_parquet(place / f"evaluated/predictions/{SAMPLES}.parquet")

    rows = pd.read_parquet(place / "evaluated/predictions/news.parquet")
    rows.assign(nll_nats=rows["nll_nats"] - 1e-3).to_parquet(place / "evaluated/predictions/news.parquet")
    assert faults(run, tmp_path) == ["metrics"], "a little better than it was"
    rows.to_parquet(place / "evaluated/predictions/news.parquet")

    plan = read_json(place / "pruned/plan.json")
    plan["keep"]["ffn"][0][0] += 1
    write_json(place / "pruned/plan.json", plan)
    assert faults(run, tmp_path) == ["pruning"]
    shutil.copyfile(tmp_path / "artifacts/rounds/r1/trained/model/model.safetensors", place / "trained/model/model.safetensors")
    assert faults(run, tmp_path) == ["checkpoints", "metrics", "pruning"]


def test_another_teacher_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = run.rounds / "r1"
    with pytest.raises(DataError, match="belongs to another"):
        distill.run(
            run.params,
            round="r1",
            pruned=place / "pruned",
            search=place / "search",
            tokens=place / "tokens",
            sets=run.sets,
            logits=run.logits,
            teacher=place / "trained/model",
            out=tmp_path / "trained",
        )


def test_rounds_are_registered_listed_and_served(run: Run, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.chdir(run.workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = run.workspace / ".compactlm" / "mlflow"
    folder.mkdir(parents=True)
    shutil.copyfile(store_template, folder / "mlflow.db")
    tracker = Tracker(run.workspace, "tiny-lm")
    stages = [stage for name in ("teacher", *ROUNDS) for stage in RoundFiles(run.workspace, name).stages]
    Publication(tracker, run.params, "0" * 64, {}).finish(dict.fromkeys(stages, "1"), dict.fromkeys(stages, "executed"))
    rows = list_models(tracker)
    assert [(row["round"], row["aliases"]) for row in rows] == [("r1", []), ("r2", ["challenger"])]
    last = rows[1]
    assert quality_of(last["metrics"]["test"]) == ("perplexity", overall(run, "r2", "test")["perplexity"]["value"])
    assert last["onnx_path"] == ""
    assert last["flops_per_token"] == read_json(run.rounds / "r2" / "evaluated/cost.json")["flops_per_token"]
    assert AutoModelForCausalLM.from_pretrained(last["path"]).num_parameters() == last["params_total"]
    served = mlflow.pyfunc.load_model(str(Path(last["path"]).parents[1]))
    assert len(served.predict(["Ca ce", "so"])["continuation"]) == 2


def test_a_distillation_killed_in_the_middle_ends_with_the_same_weights(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("tasks.training.scratch.MAX_SAVE_SHARE", float("inf"))
    steps: list[int] = []

    def killed_at_the_fifth_step(*arguments: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return causal_loss(*arguments)

    place = run.rounds / "r1"

    def again() -> None:
        distill.run(
            run.params,
            round="r1",
            pruned=place / "pruned",
            search=place / "search",
            tokens=place / "tokens",
            sets=run.sets,
            logits=run.logits,
            teacher=run.rounds / "teacher/trained/model",
            out=tmp_path / "trained",
        )

    monkeypatch.setattr("tasks.training.causal_lm.causal_loss", killed_at_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        again()
    again()
    assert len(steps) == 8, "four of seven steps were done, and the three left after it"
    assert (
        digest(tmp_path / "trained")["files"]["model/model.safetensors"]
        == (digest(place / "trained")["files"]["model/model.safetensors"])
    )
    assert (tmp_path / "trained/steps.jsonl").read_text() == (place / "trained/steps.jsonl").read_text()


@pytest.fixture(scope="module")
def fewer(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same teacher with two rounds that cut the vocabulary, then cut it again."""
    folder = tmp_path_factory.mktemp("fewer")
    shutil.copytree(run.workspace, folder, dirs_exist_ok=True)
    values = run.params.model_dump(mode="json")
    values["rounds"]["r1"] |= {"vocabulary": 290}
    values["rounds"]["r2"] |= {"vocabulary": 270}
    values["gates"] += [{"metric": "nll_nats_per_byte", "set": "test", "versus": "teacher", "max_ratio": 4.0}]
    made = Run(causal_params(values), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in made.params.rounds:
            shutil.rmtree(made.rounds / name)
            made.prune(name)
            made.distill(name)
            made.measure(name)
            made.judge(name)
    return made


@pytest.mark.slow  # the property tests of byte pairs show the same of models without a run
def test_students_with_fewer_tokens_are_measured_on_the_same_text(fewer: Run) -> None:
    teachers = read_json(fewer.rounds / "teacher/evaluated/quality.json")["sets"]
    text = read_sets(fewer.sets, ["test"])["test"]["text"].tolist()[0]
    for name, size in (("r1", 290), ("r2", 270)):
        model = fewer.rounds / name / "trained/model"
        assert read_json(model / "config.json")["vocab_size"] == size
        ids = AutoTokenizer.from_pretrained(model)(text)["input_ids"]
        assert max(ids) < size
        assert AutoTokenizer.from_pretrained(model).decode(ids) == text
        parity = read_json(fewer.rounds / name / "exported/parity.json")
        assert parity["load_back_max_difference"] <= 1e-5
        assert parity["cache_mismatched_tokens"] == 0
        for set_name in ("test", "news"):
            rows, theirs = (
                pd.read_parquet(fewer.rounds / one / f"evaluated/predictions/{set_name}.parquet") for one in (name, "teacher")
            )
            for column in ("row_id", "tokens", "bytes"):
                assert rows[column].tolist() == theirs[column].tolist()
            assert (rows["choices"].map(len) > rows["tokens"]).mean() > 0.5, "the same text takes more tokens"
            nats = rows["nll_nats"].sum()
            found = overall(fewer, name, set_name)
            assert found["nll_nats_per_byte"]["value"] == pytest.approx(nats / rows["bytes"].sum(), abs=1e-6)
            assert found["perplexity"]["value"] == pytest.approx(np.exp(nats / rows["tokens"].sum()), rel=1e-5)
            assert 0.0 < found["agreement"]["value"] < 1.0
        assert (
            read_json(fewer.rounds / name / "evaluated/quality.json")["sets"]["test"]["rows_sha256"]
            == (teachers["test"]["rows_sha256"])
        )
        results = [rule["result"] for rule in read_json(fewer.rounds / name / "verdict.json")["rules"]]
        assert "hold" not in results, "every number follows from what is stored"


@pytest.mark.slow  # the property tests of byte pairs show the same of models without a run
def test_pruning_and_numbers_of_fewer_tokens_are_derived_again(fewer: Run, tmp_path: Path) -> None:
    shutil.copytree(fewer.artifacts, tmp_path / "artifacts")
    assert faults(fewer, tmp_path) == []
    place = tmp_path / "artifacts/rounds/r2/pruned/model/tokenizer.json"
    tokenizer = read_json(place)
    tokenizer["model"]["merges"].pop()
    write_json(place, tokenizer)
    assert faults(fewer, tmp_path) == ["pruning"]


def test_a_teacher_cut_to_the_tokens_that_its_text_uses_is_as_good_as_before(run: Run, tmp_path: Path) -> None:
    """The unit of measure is the teacher's: with every token of the text kept, nothing it says of the text changes."""
    tokens, parent = run.rounds / "teacher/tokens", run.rounds / "teacher/trained/model"
    blocks = load_blocks(tokens, "test")
    config = read_json(parent / "config.json")
    counts = np.bincount(np.asarray(blocks).reshape(-1), minlength=320)
    tokenizer = read_json(parent / "tokenizer.json")
    used = set(np.flatnonzero(counts).tolist())
    every = (kept_ids(tokenizer, counts, size, config) for size in range(257, 320))
    keep = next(one for one in every if used <= set(one))
    plan = Plan(
        vocabulary=keep,
        hidden=list(range(32)),
        layers=list(range(4)),
        heads=[list(range(4))] * 4,
        ffn=[list(range(48))] * 4,
        pooler=[],
    )
    student = student_from_plan(parent, plan)
    write_tokenizer(parent, plan, tmp_path)
    segments = segments_of(blocks, tokenizer, parent / "tokenizer.json", 0)
    save_segments(segments, windows_of(segments, tmp_path / "tokenizer.json", 0, 32), tmp_path, "test")
    whole = load_causal_lm(parent)
    kept = kept_at_teacher(tmp_path, parent)
    assert kept is not None
    assert kept.tolist() == keep
    cpu = Device(torch.device("cpu"), "fp32", 1)
    rows = Reader(student, whole, kept, 4, cpu).read(tmp_path, "test", "test")
    theirs = Reader(whole, None, None, 4, cpu).read(tokens, "test", "test")
    same = rows["choices"].map(len) == theirs["choices"].map(len)  # a word that a block cuts may be written otherwise
    assert same.mean() > 0.5
    assert (agreed_pieces(rows, theirs)[0] == agreed_pieces(rows, theirs)[1]).all(), "among what stays, the same choice"
    # it is renormalised over fewer tokens, so it can only seem better, by what those that went had
    gained = (theirs["nll_nats"] - rows["nll_nats"])[same] / theirs["tokens"][same]
    assert (gained > -1e-5).all()
    recipe = Recipe("forward_kl", 1.0, 1.0, 50, torch.float32)
    ids = torch.from_numpy(load_segments(tmp_path, "test")[1].ids_WT[:4].astype(np.int64))
    loss = causal_loss(predicting(student, ids), predicting(whole, ids, kept), next_tokens(ids), recipe)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6), "the loss of a student that equals its teacher"


@pytest.mark.slow
def test_a_llama_is_taken_as_it_is_and_loses_heads_of_each_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its embedding is padded above its 258 tokens, and its makers chose how it generates."""
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "text")
    documents = tmp_path / "text/documents.jsonl"
    documents.write_text(documents.read_text().replace("la", "tha"))  # th is the one merge of its tokenizer
    base = write_decoder("llama", tmp_path / "llama")
    padded = load_causal_lm(base)
    padded.resize_token_embeddings(272)
    save_causal_lm(padded, base, base)
    write_json(base / "generation_config.json", {"do_sample": True, "temperature": 0.6, "eos_token_id": [257, 10]})
    (base / "chat_template.jinja").write_text("{{ messages }}")
    values = tiny_values(tmp_path / "text")
    values["teacher"] |= {"model": f"path:{base}", "new": None, "train_tokens": 0}
    values["prune"] = {"criterion": "taylor", "depth": "block_influence", "merge_heads": True}
    shape = {"vocabulary": 264, "hidden": 24, "heads": 2, "ffn": 20, "layers": 2}
    values["rounds"] = {"r1": {"parent": "teacher", **shape, "train_tokens": 600, "learning_rate": 1.0e-2}}
    made = Run(causal_params(values), tmp_path)
    model = made.to_teacher()
    assert file_sha256(model / "tokenizer.json") == file_sha256(base / "tokenizer.json")
    facts = made.prune("r1")
    assert facts["shape_after"] == {**shape, "vocabulary": 258}, "rows that are no token go"
    plan = read_json(made.rounds / "r1/pruned/plan.json")
    least = min(plan["layer_block_influence"], key=plan["layer_block_influence"].__getitem__)
    assert plan["keep"]["layers"] == [layer for layer in range(3) if str(layer) != least]
    assert plan["keep"]["vocabulary"] == list(range(258))
    pruned = load_causal_lm(made.rounds / "r1/pruned/model")
    assert pruned.num_parameters() == facts["params_total"]
    assert pruned.config.num_key_value_heads == 2
    made.distill("r1")
    trained = made.rounds / "r1/trained/model"
    chosen = read_json(trained / "generation_config.json")
    assert (chosen["do_sample"], chosen["temperature"], chosen["eos_token_id"]) == (True, 0.6, [257, 10])
    assert AutoTokenizer.from_pretrained(trained).chat_template == "{{ messages }}"
    parity = export.run(made.params, model=trained, sets=made.sets, out=tmp_path / "exported")
    assert parity["cache_mismatched_tokens"] == 0
    assert parity["load_back_max_difference"] <= 1e-5
    assert parity["gguf_max_difference"] <= 1e-4, "nothing but rounding, in a fresh process with stock classes"
    assert 0.0 < parity["gguf_rounding_max_difference"] < 0.1
    weights = (trained / "model.safetensors").stat().st_size
    assert parity["gguf_bytes"] == (tmp_path / "exported" / GGUF_FILE).stat().st_size < weights


def test_what_a_gguf_file_could_not_say_is_not_written() -> None:
    tokenizer = bytes_tokenizer()
    config = config_of("llama")
    assert gguf_refusal(config, tokenizer) is None
    assert "biases" in (gguf_refusal({**config, "attention_bias": True}, tokenizer) or "")
    spelled = {**tokenizer, "model": {**tokenizer["model"], "merges": []}}
    assert "no merges" in (gguf_refusal(config, spelled) or "")
    scaled = {**config, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}
    assert "scaled" in (gguf_refusal(scaled, tokenizer) or "")
    level = tokenizer["pre_tokenizer"]
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]}
    assert splitting_of({**tokenizer, "pre_tokenizer": digits}) == "smollm"
    split = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {**level, "use_regex": False}]}
    assert "split" in (gguf_refusal(config, {**tokenizer, "pre_tokenizer": split}) or "")
