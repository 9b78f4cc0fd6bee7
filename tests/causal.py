"""Tiny language models, documents and params, for tests of the task causal_lm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from tasks.models.causal_lm import DECODERS as SUPPORTED
from tasks.models.checkpoint import causal_lm_from_config
from tasks.params.causal_lm import CausalLMParams
from tasks.params.file import check_params, read_yaml
from tests.families import CONFIGS, END, bytes_tokenizer
from tests.tiny_project import FILLERS

ROOT = Path(__file__).resolve().parents[1]
DECODERS = [name for name, config in CONFIGS.items() if config["model_type"] in SUPPORTED]
ROUNDS = {
    "r1": {
        "parent": "teacher",
        "vocabulary": 320,
        "hidden": 24,
        "heads": 3,
        "ffn": 40,
        "layers": 3,
        "train_tokens": 1600,
        "learning_rate": 1.0e-2,
    },
    "r2": {
        "parent": "r1",
        "vocabulary": 320,
        "hidden": 16,
        "heads": 2,
        "ffn": 24,
        "layers": 2,
        "train_tokens": 1600,
        "learning_rate": 1.0e-2,
    },
}
NEW = {"vocabulary": 320, "hidden": 32, "heads": 4, "ffn": 48, "layers": 4}


def config_of(name: str) -> dict[str, Any]:
    """Return the config of a family's tiny language model."""
    architectures = [one.replace("SequenceClassification", "CausalLM") for one in CONFIGS[name]["architectures"]]
    return {**CONFIGS[name], "architectures": architectures, "tie_word_embeddings": name != "llama_biases"}


def write_decoder(name: str, folder: Path) -> Path:
    """Write the tiny language model of a family, with random, well-spread weights, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(bytes_tokenizer()))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = causal_lm_from_config(config_of(name))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return folder


def write_documents(folder: Path) -> None:
    """Write documents.jsonl of made-up sentences, and news/ with other words as .txt files."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"text": sentences(rng, FILLERS[:40], 4), "kind": "home" if i % 5 else "away"} for i in range(240)]
    (folder / "documents.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number in range(12):
        place = folder / "news" / ("sport" if number % 2 else "trade") / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(sentences(rng, FILLERS[20:], 5))
    (folder / "news" / "sport" / "old.txt").write_bytes(b"a price of \xa33 in the year of " + b"one " * 30)


def sentences(rng: random.Random, words: list[str], count: int) -> str:
    """Return sentences in which each word suggests the next."""
    said = []
    for _ in range(count):
        place = rng.randrange(len(words))
        sentence = []
        for _ in range(8):
            sentence.append(words[place])
            place = (place * 3 + rng.randrange(2)) % len(words)
        said.append(" ".join(sentence).capitalize() + ".")
    return " ".join(said)


def tiny_values(folder: Path) -> dict[str, Any]:
    """Return the values of params/gpt2-tiny.yaml made tiny, on documents in `folder`."""
    values: dict[str, Any] = read_yaml(ROOT / "params" / "gpt2-tiny.yaml")
    news = {"source": f"path:{folder / 'news'}", "columns": None, "blocks": 8}
    values["data"] |= {
        "source": f"path:{folder / 'documents.jsonl'}",
        "columns": {"text": "text", "source": "kind"},
        "text_sources": ["home"],
        "splits": {"validation": 0.1, "test": 0.1},
        "block_tokens": 32,
        "evaluation_blocks": 12,
        "calibration_blocks": 16,
        "evaluation_sets": {"news": news},
    }
    values["validate_data"]["min_documents"] = 20
    values["teacher"] |= {
        "new": dict(NEW),
        "train_tokens": 16000,
        "learning_rate": 1.0e-2,
        "batch_blocks": 8,
        "checkpoints": 2,
        "chunk_tokens": 50,
    }
    values["distill"] |= {"batch_blocks": 8, "chunk_tokens": 50, "checkpoints": 2, "kd_weight": 0.9}
    values["rounds"] = {name: dict(one) for name, one in ROUNDS.items()}
    values["evaluate"] |= {
        "bootstrap_resamples": 50,
        "batch_blocks": 4,
        "prompts": 3,
        "prompt_tokens": 8,
        "new_tokens": 12,
        "latency_batches": [1, 2],
        "latency_tokens": 8,
        "latency_repeats": 3,
    }
    values["gates"] = [
        {"metric": "perplexity", "set": "test", "versus": "teacher", "max_ratio": 50.0},
        {"metric": "agreement", "set": "news", "min": 0.0},
        {"metric": "load_back_max_difference", "max": 1.0e-4},
        {"metric": "cache_mismatched_tokens", "max": 0},
        {"check": "data_validated"},
        {"metric": "perplexity", "set": "test", "versus": "parent", "max_ratio": 50.0},
    ]
    values["promotion"] = {"gates": [], "approval": None, "remote": None}
    values["registry"]["model_name"] = "tiny-lm"
    values["runtime"] |= {"device": "cpu", "precision": "fp32", "threads": 1}
    return values


def causal_params(values: dict[str, Any]) -> CausalLMParams:
    """Return the params of these values."""
    params = check_params(values, "params.yaml")
    assert isinstance(params, CausalLMParams)
    return params
