"""Measures honest rivals on the same sets with the same intervals: TF-IDF with logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.data.frames import read_sets
from tasks.files import write_json
from tasks.measuring.predictions import write_predictions
from tasks.measuring.rivals import WORDS, fit_tfidf_logistic
from tasks.measuring.rows import learnt_words, measure
from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.measures import row_settings
from tasks.progress import say
from tasks.running.stage import InPath, OutPath

TFIDF: Final = "tfidf_logistic"


def run(params: ClassificationParams | CausalLMParams, *, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return each rival's accuracy on the test set and what it chose on validation."""
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for name, rival in RIVALS[params.task].items():
        entries[name], facts[name] = rival(params, sets, out / "predictions" / name)
    write_json(out / "quality.json", {"confidence": params.evaluate.confidence, "rivals": entries})
    return {"rivals": facts}


def tfidf_rival(params: ClassificationParams, sets: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rival's entry of quality.json and its facts; writes its predictions."""
    frames = read_sets(sets, ["train", "validation", "transfer"])
    texts = {name: frame["text"].tolist() for name, frame in frames.items()}
    labels = {name: frame["label"].to_numpy(dtype=np.int64) for name, frame in frames.items()}
    rival = fit_tfidf_logistic(
        texts["train"], labels["train"], texts["validation"], labels["validation"], len(params.data.labels)
    )
    if rival.of != WORDS:
        say(f"baselines: {TFIDF}: no training text has a word of two letters or more; it counts {rival.of}")
    learnt, how = learnt_words([frames["train"], frames["transfer"]]), row_settings(params)
    entries = {}
    for name, frame in read_sets(sets, params.data.measured_sets).items():
        entries[name], predictions = measure(frame, rival.logits(frame["text"].tolist()), None, learnt, how)
        write_predictions(predictions, out, name)
    test = entries["test"]["slices"]["overall"]["accuracy"]["value"]
    say(f"baselines: {TFIDF} C {rival.penalty:g}: test accuracy {test:.3f}")
    facts = {"penalty": rival.penalty, "validation_accuracy": rival.validation_accuracy, "test_accuracy": test}
    return {"sets": entries}, facts


RIVALS: Final[dict[str, dict[str, Callable[..., tuple[dict[str, Any], dict[str, Any]]]]]] = {
    CLASSIFICATION: {TFIDF: tfidf_rival},
    CAUSAL_LM: {},  # a linear model over words predicts no next token
}
