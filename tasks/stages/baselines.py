"""Measures honest rivals on the same sets with the same intervals: TF-IDF with logistic regression.

Of pairs there is also one that reads the second text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from tasks.data.frames import in_hash_order, read_sets
from tasks.data.pairs import SECOND, holds_pairs, texts_of
from tasks.files import write_json
from tasks.measuring.predictions import write_predictions
from tasks.measuring.rivals import WORDS, TfidfLogistic, fit_pairs_logistic, fit_tfidf_logistic
from tasks.measuring.rows import learnt_words, measure
from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.measures import row_settings
from tasks.progress import say
from tasks.running.stage import InPath, OutPath

TFIDF: Final = "tfidf_logistic"
ALONE: Final = "second_text_alone"
MOST_PAIRS: Final = 30_000  # that a rival is fitted on; with more it takes minutes, and gains a point


def run(params: ClassificationParams | CausalLMParams, *, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return each rival's accuracy on the test set and what it chose on validation."""
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for name, rival in RIVALS[params.task].items():
        if name == ALONE and not _of_pairs(params):
            continue
        entries[name], facts[name] = rival(params, sets, out / "predictions" / name)
    write_json(out / "quality.json", {"confidence": params.evaluate.confidence, "rivals": entries})
    return {"rivals": facts}


def _of_pairs(params: ClassificationParams | CausalLMParams) -> bool:
    return isinstance(params, ClassificationParams) and params.data.columns.text_pair is not None


def tfidf_rival(params: ClassificationParams, sets: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rival's entry of quality.json and its facts; writes its predictions."""
    return _rival(params, sets, out, TFIDF, texts_of)


def alone_rival(params: ClassificationParams, sets: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the same of a rival that reads the second text of each pair alone."""
    return _rival(params, sets, out, ALONE, lambda frame: frame[SECOND].tolist())


def _rival(
    params: ClassificationParams, sets: Path, out: Path, rival_name: str, read: Callable[[pd.DataFrame], list[Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    frames = read_sets(sets, ["train", "validation", "transfer"])
    rival = _fitted(frames, len(params.data.labels), read)
    if rival.of != WORDS:
        say(f"baselines: {rival_name}: no training text has a word of two letters or more; it counts {rival.of}")
    learnt, how = learnt_words([frames["train"], frames["transfer"]]), row_settings(params)
    entries = {}
    for name, frame in read_sets(sets, params.data.measured_sets).items():
        entries[name], predictions = measure(frame, rival.logits(read(frame)), None, learnt, how)
        write_predictions(predictions, out, name)
    test = entries["test"]["slices"]["overall"]["accuracy"]["value"]
    say(f"baselines: {rival_name} C {rival.penalty:g}: test accuracy {test:.3f}")
    facts = {"penalty": rival.penalty, "validation_accuracy": rival.validation_accuracy, "test_accuracy": test}
    return {"sets": entries}, facts


def _fitted(frames: Mapping[str, pd.DataFrame], classes: int, read: Callable[[pd.DataFrame], list[Any]]) -> TfidfLogistic:
    """Return the rival fitted on what `read` returns of the training rows, of pairs at most `MOST_PAIRS` of them."""
    train, validation = frames["train"], frames["validation"]
    if holds_pairs(train):
        train = in_hash_order(train, "baseline").head(MOST_PAIRS)
    fit = fit_pairs_logistic if isinstance(read(validation)[0], tuple) else fit_tfidf_logistic
    rows = [(read(frame), frame["label"].to_numpy(dtype=np.int64)) for frame in (train, validation)]
    return fit(*rows[0], *rows[1], classes)


RIVALS: Final[dict[str, dict[str, Callable[..., tuple[dict[str, Any], dict[str, Any]]]]]] = {
    CLASSIFICATION: {TFIDF: tfidf_rival, ALONE: alone_rival},
    CAUSAL_LM: {},  # a linear model over words predicts no next token
}
