"""Honest records for the table of adversarial gate inputs: a chain of receipts, summaries of the data, golden answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tasks.gates.data import data_validated, no_overlap
from tasks.gates.rules import Answer
from tasks.lineage.merkle import receipts_root
from tasks.promotion.checks import clean_git, lineage, read_receipts
from tasks.promotion.golden import answered, golden_rows, reproduced

LAST = "gate@r1"
CHAIN = {
    "fetch": (["sources.lock"], ["artifacts/fetched/rows.csv"]),
    "prepare": (["artifacts/fetched/rows.csv"], ["artifacts/data/sets/train.parquet"]),
    "distill@r1": (["artifacts/data/sets/train.parquet"], ["artifacts/rounds/r1/trained/model/model.safetensors"]),
    LAST: (["artifacts/rounds/r1/trained/model/model.safetensors"], ["artifacts/rounds/r1/verdict.json"]),
}
LOGITS = [[0.5, -0.5], [-1.0, 2.0]]


def sha256(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def receipt(stage: str) -> dict[str, Any]:
    inputs, outputs = CHAIN[stage]
    return {
        "stage": stage,
        "command": [stage],
        "params": {},
        "started_at": "2026-11-23T04:00:00Z",
        "compute_seconds": 1.0,
        "inputs": {path: {"sha256": sha256(path)} for path in inputs},
        "outputs": {path: {"sha256": sha256(path)} for path in outputs},
        "git": {"commit": "0123456789abcdef", "dirty": False, "diff_sha256": None, "diff": None},
    }


def encoded(receipts: dict[str, Any]) -> dict[str, bytes]:
    return {stage: json.dumps(one).encode() for stage, one in receipts.items()}


@dataclass
class Records:
    """What the checks read; each field is what an attack may change."""

    receipts: dict[str, Any] = field(default_factory=lambda: {stage: receipt(stage) for stage in CHAIN})
    root: str | None = field(default_factory=lambda: receipts_root(encoded({one: receipt(one) for one in CHAIN})))
    stored: dict[str, str] = field(
        default_factory=lambda: {
            "trained/model/model.safetensors": sha256("artifacts/rounds/r1/trained/model/model.safetensors"),
            "verdict.json": sha256("artifacts/rounds/r1/verdict.json"),
        }
    )
    validation: dict[str, Any] = field(
        default_factory=lambda: {
            "file": "rows.csv",
            "sha256": "d" * 64,
            "success": True,
            "problems": [],
            "expectations": [{"name": one, "success": True} for one in ("labels", "one_set_a_text", "near_duplicates_held_out")],
        }
    )
    prepared: dict[str, Any] = field(default_factory=lambda: {"sha256": "d" * 64, "sets": {"test": {"rows_sha256": "a" * 64}}})
    learnt: dict[str, Any] = field(
        default_factory=lambda: {
            "train": {f"{row:016x}" for row in range(5000, 5100)},
            "transfer": {f"{row:016x}" for row in range(6000, 6100)},
        }
    )
    golden: Any = field(
        default_factory=lambda: {
            "atol": 1e-4,
            "rows": [
                {"text": "good", "label": "negative", "logits": LOGITS[0]},
                {"text": "bad", "label": "positive", "logits": LOGITS[1]},
            ],
        }
    )
    logits: Any = field(default_factory=lambda: np.array(LOGITS, dtype=np.float32))
    told: Any = field(
        default_factory=lambda: [
            {"label": "negative", "score": 1 / (1 + math.exp(-1.0))},
            {"label": "positive", "score": 1 / (1 + math.exp(-3.0))},
        ]
    )


def cell(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return an edit of stored predictions that puts a value into one row."""

    def edit(of: pd.DataFrame) -> pd.DataFrame:
        values = of[column].tolist()
        values[5] = value
        return of.assign(**{column: values})

    return edit


def answers(records: Records, quality: dict[str, Any], measured: dict[str, Any], asked: list[str]) -> dict[str, Answer]:
    """Return the answers of the checks that are asked."""
    ask: dict[str, Callable[[], Answer | None]] = {
        "data_validated": lambda: data_validated(records.validation, records.prepared, quality),
        "no_overlap": lambda: no_overlap(records.validation, records.learnt, measured),
        "clean_git": lambda: _of_receipts(records, "clean_git"),
        "lineage": lambda: _of_receipts(records, "lineage"),
        "golden": lambda: _golden(records, lambda rows, atol: reproduced(rows, records.logits, atol)),
        "serves": lambda: _golden(records, lambda rows, atol: answered(rows, records.told, atol)),
    }
    return {name: found for name in asked if (found := ask[name]()) is not None}


def _of_receipts(records: Records, check: str) -> Answer:
    copies = {stage: one if isinstance(one, bytes) else json.dumps(one).encode() for stage, one in records.receipts.items()}
    receipts = read_receipts(copies, LAST)
    if isinstance(receipts, str):
        return Answer("hold", receipts)
    if check == "clean_git":
        return clean_git(receipts, LAST)
    return lineage(copies, receipts, LAST, records.root, records.stored)


def _golden(records: Records, compare: Callable[[Any, float], Answer]) -> Answer | None:
    known = golden_rows(records.golden)
    return None if known is None else compare(*known)
