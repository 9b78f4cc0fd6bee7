"""Tiny sets and params on which the measuring stages run in seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.data.frames import write_sets
from tasks.data.stress import with_changed_set
from tasks.data.tokens import save_tokens, tokenize
from tasks.data.typos import typo_set
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, read_yaml

STRESS: dict[str, Any] = {
    "sets": {"posts": {"about": "short posts", "source": "path:posts", "rows": 30}},
    "changed": {"of": "validation", "rows": 20, "kinds": ["handles", "emails"]},
}
FAMILIES = ("bert", "gpt2", "llama")
GOOD, BAD, REST = ["great", "good", "fine"], ["dull", "bad", "slow"], ["film", "plot", "act", "not", "a", "the"]


def tiny_params(**evaluate: object) -> ClassificationParams:
    """Return the shipped params with short texts and few repeats."""
    values = read_yaml(Path(__file__).parents[2] / "params.yaml")
    values["data"]["max_tokens"] = 32
    values["data"]["transfer"] |= {"broad": None, "surface": None}
    values["data"]["stress"] = STRESS
    values["prune"]["vocabulary_prior"] = None
    values["runtime"]["threads"] = 1
    values["evaluate"] |= {"bootstrap_resamples": 200, "latency_batches": [1, 4], "latency_tokens": 8}
    values["evaluate"] |= {"latency_repeats": 12, **evaluate}
    return check_params(values, "params.yaml")


def tiny_set(rows: int, seed: int, labelled: bool = True) -> pd.DataFrame:
    """Return rows of made-up reviews whose words tell the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    texts = [
        " ".join([*rng.choice(REST, rng.integers(1, 9)), rng.choice(GOOD if label else BAD), f"n{seed}x{row}"])
        for row, label in enumerate(labels)
    ]
    return pd.DataFrame(
        {
            "row_id": [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts],
            "text": texts,
            "label": labels if labelled else -1,
            "source": "rotten_tomatoes",
        }
    )


def write_tiny_sets(folder: Path) -> None:
    """Write every set of a run."""
    sizes = {"train": 200, "validation": 80, "test": 60, "imdb": 40}
    sets = {name: tiny_set(rows, seed) for seed, (name, rows) in enumerate(sizes.items())}
    sets["test_typos"] = typo_set(sets["test"], 0.3)
    sets = with_changed_set(sets, STRESS)
    sets["stress_posts"] = tiny_set(30, 11, labelled=False).assign(source="posts")
    write_sets({**sets, "transfer": tiny_set(100, 9, labelled=False)}, folder)


TEXTS = tiny_set(30, 7)["text"].tolist()


def write_families(folder: Path) -> None:
    """Write the sets, and below each family's name its `teacher`, with random weights, and its `tokens`."""
    from tests.families import write_family

    write_tiny_sets(folder / "sets")
    train = pd.read_parquet(folder / "sets" / "train.parquet")
    write_sets({"calibration": train.head(24).assign(label=-1), "validation": tiny_set(40, 3)}, folder / "sets")
    for family in FAMILIES:
        base = write_family(family, folder / family / "teacher")
        for file in (folder / "sets").glob("*.parquet"):
            texts = pd.read_parquet(file)["text"].tolist()
            save_tokens(tokenize(texts, base / "tokenizer.json", 48), folder / family / "tokens" / file.stem)
