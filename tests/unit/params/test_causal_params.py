"""params.yaml of language models: what it must say, what does not belong, and the files that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig, MPNetConfig

from tasks.errors import ParamsError, SourceError
from tasks.models.architectures import adapter_of
from tasks.models.causal_lm import count_parameters, flops_per_token, new_config
from tasks.models.checkpoint import causal_lm_from_config, classifier_from_config
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, load_params
from tasks.running.preflight import check_causal_shapes, check_shapes
from tests.causal import ROOT, causal_params, tiny_values
from tests.conftest import tiny_config

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
    head_dim=64,
    tie_word_embeddings=True,
).to_dict()
MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536).to_dict()
# file -> config of its teacher, parameters of the teacher and of each round in millions
FILES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "gpt2-tiny.yaml": (
        new_config({"vocabulary": 1024, "hidden": 192, "heads": 6, "ffn": 768, "layers": 4}, 128),
        [2.0, 1.1, 0.5],
    ),
    "smollm2.yaml": (SMOLLM2, [134.5, 91.8, 83.2]),
    "gpt2-wikitext.yaml": (GPT2Config().to_dict(), [124.4, 33.9, 12.5]),
    "smallest.yaml": (MINILM, [22.7, 11.2, 5.4, 2.8, 1.4, 0.7]),
    "snli.yaml": (MINILM, [22.7, 9.7, 5.6, 2.8]),
    "mpnet-base.yaml": (MPNetConfig().to_dict(), [109.5, 33.9, 13.4]),
    "bert-base-sst2.yaml": (BertConfig().to_dict(), [109.5, 35.1, 12.8]),
}


@pytest.mark.parametrize("file", FILES)
def test_the_files_that_come_with_the_project_have_the_shapes_they_promise(file: str) -> None:
    params = load_params(ROOT / "params" / file)
    config, millions = FILES[file]
    if isinstance(params, CausalLMParams):
        check_causal_shapes(params, config)
    else:
        assert isinstance(params, ClassificationParams)
        check_shapes(params, config)
    adapter = adapter_of(config)
    shapes = [adapter.shape(config), *[one.axes for one in params.rounds.values()]]
    for shape, promised in zip(shapes, millions, strict=True):
        with torch.device("meta"):  # random weights without their memory
            sized = adapter.resized(config, shape)
            if isinstance(params, CausalLMParams):
                counted, model = count_parameters(config, shape), causal_lm_from_config(sized)
            else:
                counted, model = adapter.count_parameters(config, shape, 2), classifier_from_config(sized)
        assert counted["total"] == model.num_parameters()
        assert counted["total"] / 1e6 == pytest.approx(promised, abs=0.06)


@pytest.mark.parametrize(
    ("budget", "held"), [("params_total", {}), ("ratio", {"vocabulary": 49152}), ("flops_per_token", {"heads": 9, "layers": 30})]
)
def test_a_budget_of_a_language_model_is_met_from_below(tmp_path: Path, budget: str, held: dict[str, int]) -> None:
    values = tiny_values(tmp_path)
    limit = {"params_total": 84_000_000, "ratio": 1.6, "flops_per_token": 170_000_000}[budget]
    values["rounds"] = {"r1": {"parent": "teacher", budget: limit, **held, "train_tokens": 600, "learning_rate": 1.0e-2}}
    values["evaluate"]["latency_tokens"] = 16
    params = causal_params(values)
    shape = check_causal_shapes(params, SMOLLM2)["r1"]
    assert held.items() <= shape.items()
    config = adapter_of(SMOLLM2).resized(SMOLLM2, shape)
    total = count_parameters(SMOLLM2, shape)["total"]
    if budget == "flops_per_token":
        assert 0.95 * limit < flops_per_token(config, 16) <= limit
    else:
        most = limit if budget == "params_total" else 134_515_008 / limit
        assert 0.95 * most < total <= most
    with torch.device("meta"):
        assert causal_lm_from_config(config).num_parameters() == total
    assert params.rounds["r1"].model_dump() == values["rounds"]["r1"], "what was left out stays out of records"


def test_a_second_round_starts_from_the_shape_that_the_first_was_solved_for(tmp_path: Path) -> None:
    values = tiny_values(tmp_path)
    budget = {"train_tokens": 600, "learning_rate": 1.0e-2}
    values["rounds"] = {"r1": {"parent": "teacher", "ratio": 1.4, **budget}, "r2": {"parent": "r1", "ratio": 1.7, **budget}}
    shapes = check_causal_shapes(causal_params(values), SMOLLM2)
    assert all(shapes["r2"][axis] <= shapes["r1"][axis] for axis in shapes["r1"])
    values["rounds"]["r2"]["ratio"] = 1.3
    with pytest.raises(ParamsError, match=r"rounds.r2.ratio: no shape within 5% below"):
        check_causal_shapes(causal_params(values), SMOLLM2)


def test_every_yaml_file_is_checked() -> None:
    assert {path.name for path in (ROOT / "params").glob("*.yaml")} == set(FILES)
    assert isinstance(load_params(ROOT / "params.yaml"), ClassificationParams)


SHOWN = {
    "metric": "perplexity",
    "set": "test",
    "versus": "teacher",
    "max_ratio": 1.5,
    "test": "paired_bootstrap",
    "confidence": 0.95,
    "min_support": 9,
}


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value by its dotted key."""
    *path, last = key.split(".")
    place: Any = values
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("task", "translation", "task: 'translation' is unknown; write task: classification or task: causal_lm"),
        ("data.labels", {0: "a", 1: "b"}, "data.labels: unknown key allowed here: block_tokens"),
        ("teacher.epochs", 3, "teacher.epochs: unknown key"),
        ("teacher.new.width", 3, "teacher.new.width: unknown key allowed here: ffn, heads, hidden"),
        ("teacher.train_tokens", 0, "model: new:gpt2 starts from random weights; give it train_tokens"),
        ("teacher.model", "path:somewhere", "`new` gives the shape of model: new:gpt2, and is null for every other"),
        ("rounds.r1.labelled_epochs", 1, "rounds.r1.labelled_epochs: unknown key"),
        ("rounds.r1.ratio", 2.0, "rounds.r1: ratio: all axes are given, so nothing is left to solve"),
        ("rounds.r1.layers", None, "rounds.r1: layers: missing; give every axis, or one of params_total, ratio, flops"),
        ("rounds.r1.speedup", 2.0, "rounds.r1.speedup: unknown key"),
        ("rounds.r2.layers", 4, "rounds.r2.layers: 4 is larger than its parent's 3"),
        ("gates.0.metric", "accuracy", "gates.0.metric: 'accuracy' is not measured of language models; allowed: agree"),
        ("gates.0", {**SHOWN, "test": "mcnemar"}, "perplexities are compared by test: paired_bootstrap and max_ratio"),
        ("gates.0", {**SHOWN, "confidence": None}, "`test` and `confidence` need each other"),
        ("gates.0", {**SHOWN, "min_support": None}, "`min_support` is needed with `confidence`"),
        ("gates.0", {**SHOWN, "metric": "nll_nats_per_token"}, "`test` compares accuracies"),
        (
            "gates.0",
            {"metric": "agreement", "set": "test", "min": 0.1, "confidence": 0.95, "min_support": 9},
            "takes no confidence",
        ),
        ("data.stress", None, "data.stress: unknown key; sets without labels are for classifiers; a language model's"),
        ("data.broad", None, "data.broad: unknown key; a language model learns from blocks of its own text"),
        ("prune.vocabulary_prior", None, "prune.vocabulary_prior: unknown key; of a language model's pieces those that occur"),
        ("report.examples", 3, "report.examples: the report of a language model shows no texts; write report: {examples: 0}"),
        ("gates.0.set", "imdb", "gates.0.set: 'imdb' is not one of validation, test, news"),
        ("gates.0", {"check": "no_overlap"}, "gates.0.check: no_overlap cannot be answered of language models; allowed: da"),
        ("promotion.gates", [{"check": "serves"}], "promotion.gates.0.check: serves cannot be answered of language models"),
        ("gates.0", {"check": "lineage"}, "gates.0.check: lineage is asked in promotion.gates"),
        ("distill.hidden", {"loss": "mse"}, "distill.hidden.weight: missing"),
        ("evaluate.prompt_tokens", 30, "prompt_tokens + new_tokens must be at most data.block_tokens = 32"),
        ("data.columns", {"text": "text", "source": None}, "text_sources chooses by columns.source, which is null"),
        ("baselines.random_init", ["r9"], "baselines.random_init: 'r9' is not a round"),
        ("rounds.r1.search", {}, "rounds.r1.search: unknown key; rounds of a language model do not search; allowed here"),
        ("rounds.r1.granularity", "n_m", "rounds.r1.granularity: unknown key; masks are for classifiers; a round of a"),
        (
            "trials.rounds",
            ["r1"],
            "rounds of a language model do not search; write trials: {rounds: [], candidates: [], places: []}",
        ),
        ("gates.0", {**SHOWN, "slice": "negation"}, "gates.0: language models have neither slices nor the rival tfidf_lo"),
    ],
)
def test_what_does_not_belong_is_refused_with_its_key(tmp_path: Path, key: str, value: Any, words: str) -> None:
    values = tiny_values(tmp_path)
    put(values, key, value)
    with pytest.raises(ParamsError) as refusal:
        check_params(values, "params.yaml")
    assert words in str(refusal.value)


def test_a_classifier_is_not_asked_for_perplexity() -> None:
    from tasks.params.file import read_yaml

    values = read_yaml(ROOT / "params.yaml")
    values["gates"].append({"metric": "perplexity", "set": "test", "max": 30.0})
    with pytest.raises(ParamsError, match=r"gates\.\d+\.metric: 'perplexity' is not measured of classifiers; allowed: acc"):
        check_params(values, "params.yaml")
    del values["gates"][-1]
    values["distill"]["cache"] = {"top_k": 256, "tokens": 1000}
    with pytest.raises(ParamsError, match=r"distill\.cache: of a classifier all logits are cached; write cache: null"):
        check_params(values, "params.yaml")


def test_an_encoder_and_a_smaller_vocabulary_are_refused(tmp_path: Path) -> None:
    values = tiny_values(tmp_path)
    params = causal_params(values)
    for kind in ("bert", "distilbert"):
        with pytest.raises(
            SourceError, match=f"model_type '{kind}' is no language model .*: gpt2, llama, mistral, qwen2, qwen3$"
        ):
            check_causal_shapes(params, {**tiny_config(320), "model_type": kind})
    values["rounds"]["r1"]["vocabulary"] = values["rounds"]["r2"]["vocabulary"] = 200
    with pytest.raises(ParamsError, match=r"rounds.r1: vocabulary = 200: .* allowed: from 257 to 320"):
        check_causal_shapes(causal_params(values), new_config(values["teacher"]["new"], 32))
