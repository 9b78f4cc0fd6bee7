"""Derives again what follows from the stored files of a language model, where `tasks.audit.rederive` is about classifiers.

Works on a view of the run, as that does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.audit.rederive import differences, same_model
from tasks.data.blocks import block_ids, load_blocks
from tasks.data.frames import rows_sha256
from tasks.files import file_sha256, read_json
from tasks.lineage.checks import Finding, compare
from tasks.measuring.perplexity import measure_blocks, repetition_rate
from tasks.measuring.predictions import SAMPLES
from tasks.measuring.quality import Draws, interval_of_mean


def pruned(view: Path, name: str, parent: str) -> list[Finding]:
    """Return where a round's pruned model is not, bit for bit, what follows from its parent and its plan."""
    from tasks.models.checkpoint import save_causal_lm
    from tasks.pruning.causal_lm import student_from_plan
    from tasks.pruning.cut import write_tokenizer
    from tasks.pruning.shapes import Plan

    place, source = view / f"artifacts/rounds/{name}/pruned", view / f"artifacts/rounds/{parent}/trained/model"
    record = read_json(place / "plan.json")
    found = compare(
        "pruning",
        f"{name}: plan.json: parent_sha256",
        file_sha256(source / "model.safetensors"),
        record["parent_sha256"],
        "the plan was made for another parent",
    )
    with tempfile.TemporaryDirectory(dir=view) as folder:
        plan = Plan.from_json(record["keep"])
        save_causal_lm(student_from_plan(source, plan), source, Path(folder))
        write_tokenizer(source, plan, Path(folder))
        return found + same_model(Path(folder), place / "model", f"artifacts/rounds/{name}/pruned/model")


def measured(view: Path, params: Mapping[str, Any], evaluated: str, who: str) -> list[Finding]:
    """Return where the reported quality of a round or the teacher does not follow from its stored blocks and samples.

    Intervals are drawn again with the recorded seed; blocks are compared with those that were prepared.
    """
    folder, how = view / evaluated, params["evaluate"]
    report = read_json(folder / "quality.json")
    weights = file_sha256(view / f"artifacts/rounds/{who}/trained/model/model.safetensors")
    found = compare("metrics", f"{who}: model_sha256", weights, report["model_sha256"], "measured on another model")
    draws = Draws(how["bootstrap_resamples"], how["confidence"], params["seed"])
    for name, entry in report["sets"].items():
        rows = pd.read_parquet(folder / f"predictions/{name}.parquet")
        theirs = pd.read_parquet(view / f"artifacts/rounds/teacher/evaluated/predictions/{name}.parquet")
        subject = f"{who}: {name}"
        found += _blocks(subject, rows, entry, view / "artifacts/rounds/teacher/tokens", name)
        again = measure_blocks(rows, theirs, draws)
        found += differences(subject, {"overall": again}, entry["slices"])
        if "greedy" in entry["variants"]:
            samples = pd.read_parquet(folder / f"predictions/{SAMPLES}.parquet")["sample"]
            rates = np.array([repetition_rate(sample.tolist()) for sample in samples])
            rate = interval_of_mean(rates, draws)
            found += differences(subject, {"repetition_rate": rate}, entry["variants"]["greedy"])
    return found


def _blocks(subject: str, rows: pd.DataFrame, entry: Mapping[str, Any], tokens: Path, name: str) -> list[Finding]:
    """Return where the predicted blocks are not those of the prepared set."""
    # whatever the tokens of a student are, its text is cut where the teacher's blocks are
    ids, mine = block_ids(load_blocks(tokens, name)), rows["row_id"].tolist()
    found = compare("metrics", f"{subject}: rows", list(ids), mine, "other blocks than those of the prepared set")
    return found + compare(
        "metrics", f"{subject}: rows_sha256", rows_sha256(ids), entry["rows_sha256"], "reported of other blocks"
    )
