"""The one door to transformers: loads and saves models and tokenizers as plain Hugging Face folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a stage reads what `fetch` brought, never the network

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def load_classifier(folder: Path, num_labels: int | None = None, labels: dict[int, str] | None = None) -> Any:
    """Return the sequence classifier of a folder, fp32, in eval mode.

    With `num_labels`, a missing head is made from the current torch seed; without it the folder must have one.
    Only safetensors are read and no code of the folder is run.
    """
    extra: dict[str, Any] = {}
    if num_labels is not None:
        names = labels or {i: f"LABEL_{i}" for i in range(num_labels)}
        extra = {"num_labels": num_labels, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **extra
    )
    return model.eval()


def attend_plainly(model: Any, device: torch.device) -> None:
    """Make the model compute attention as plain matrix products where it trains on a CPU; elsewhere nothing changes.

    At a classifier's lengths that is the faster way: of a bf16 step with the fused kernel of torch 2.13, half is that
    kernel's backward pass (docs/benchmarks.md). The results differ by rounding alone, and nothing of it is saved.
    """
    if device.type == "cpu":
        model.set_attn_implementation("eager")


def classifier_from_config(config: dict[str, Any]) -> Any:
    """Return a sequence classifier of this config with random weights from the current torch seed, in eval mode."""
    config = dict(config)
    model_type = config.pop("model_type")
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **config)).eval()


def save_classifier(model: Any, tokenizer_folder: Path, out: Path) -> None:
    """Write a stock Hugging Face folder: config.json, model.safetensors and the tokenizer's files."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    copy_tokenizer(tokenizer_folder, out)


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files of a model folder."""
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source != out:
            shutil.copyfile(source / name, out / name)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
