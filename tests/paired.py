"""A few hundred made-up pairs of texts whose label follows from both: the second praises, unless the first takes it back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, read_yaml
from tests.tiny_project import write_rows

OPINIONS = (["dull", "bad", "slow"], ["good", "great", "fine"])
FILLERS = ["film", "plot", "act", "scene", "music", "end", "cast", "script", "tone", "light"]
LABELS = {0: "against", 1: "for"}
PRUNED = {"vocabulary": 78, "hidden": 24, "heads": 3, "ffn": 32, "layers": 2}


def pair_rows(firsts: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    """Return four rows of each first text: a, b, label, source, and album, which two first texts after each other share."""
    rng, rows = random.Random(seed), []
    for number in range(firsts):
        denied = number % 4 == 3
        first = f"the {rng.choice(FILLERS)} of number {number} is {'never ' if denied else ''}{rng.choice(FILLERS)}"
        for turn in range(4):
            label = turn % 2
            opinion = rng.choice(OPINIONS[label ^ denied])
            second = f"{opinion} {' '.join(rng.sample(FILLERS, 3))} {number * 7 % 90}"
            source = "away" if number % 10 == 9 else "home"
            rows.append({"a": first, "b": second, "label": label, "source": source, "album": f"album {number // 2}"})
    return rows


def pair_params(rows: Path, **data: Any) -> ClassificationParams:
    """Return the shipped params for the pairs of a file, made tiny; `data` are further values of that section."""
    values: dict[str, Any] = read_yaml(Path(__file__).parents[1] / "params.yaml")
    values["data"] |= {
        "source": f"path:{rows}",
        "columns": {"text": "a", "text_pair": "b", "label": "label", "source": "source", "split": None},
        "labels": LABELS,
        "task_sources": ["home"],
        "splits": {"validation": 0.15, "test": 0.2},
        "transfer": {"sources": ["away"], "min_words": 2, "max_words": 40, "rows": 8, "spliced_rows": 60},
        "evaluation_sets": {"abroad": {"sources": ["away"], "rows": 10}},
        "typos": {"of": "test", "word_share": 0.3},
        "stress": None,
        "calibration_rows": 24,
        "max_tokens": 40,
        **data,
    }
    values["validate_data"] |= {"min_rows_per_class": 20, "max_duplicate_share": 0.2, "max_conflicting_share": 0.05}
    values["teacher"] |= {"epochs": 2, "learning_rate": 5.0e-3, "batch_rows": 16, "frozen_layers": None}
    values["prune"]["vocabulary_prior"] = None
    values["distill"] |= {
        "batch_rows": 16,
        "checkpoints": 2,
        "hidden": {"loss": "mse", "weight": "dynamic", "layers": "uniform", "until_share": 0.6},
        "relations": {"heads": 4, "weight": "dynamic", "until_share": 0.6},
    }
    budget = {"parent": "teacher", "labelled_epochs": 2, "transfer_epochs": 1.0, "learning_rate": 5.0e-3}
    values["rounds"] = {"r1": {**PRUNED, **budget}}
    values["evaluate"] |= {"bootstrap_resamples": 50, "latency_batches": [1, 2], "latency_tokens": 8, "latency_repeats": 3}
    values["gates"] = [
        {"metric": "params_total", "versus": "teacher", "max_ratio": 0.99},
        {"metric": "load_back_max_difference", "max": 1.0e-5},
        {"metric": "golden_max_difference", "max": 1.0e-4},
        {"metric": "onnx_max_difference", "max": 1.0e-4},
        {"metric": "accuracy", "set": "test", "versus": "second_text_alone", "min_gain": -1.0},
        {"metric": "order_sensitivity", "set": "test", "max": 1.0},
        {"check": "data_validated"},
        {"check": "no_overlap"},
    ]
    values["promotion"]["gates"] = []
    values["runtime"] |= {"device": "cpu", "precision": "fp32", "threads": 1}
    return check_params(values, "params.yaml")


def write_pairs(path: Path, firsts: int = 90) -> Path:
    """Write the rows as CSV and return its path."""
    write_rows(path, pair_rows(firsts))
    return path
