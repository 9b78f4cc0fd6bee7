"""What an audit derives again of a language model: pruned weights, and metrics from stored blocks and samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import TEACHER, RoundPaths
from tasks.audit.rederive import differences, draws_of, follows, measured_sets, same_rows
from tasks.data.blocks import block_ids, load_blocks
from tasks.lineage.checks import Finding
from tasks.measuring.perplexity import measure_blocks, repetition_rate
from tasks.measuring.predictions import SAMPLES
from tasks.measuring.quality import interval_of_mean
from tasks.pruning.shapes import Plan


def pruned(view: Path, name: str, parent: str) -> list[Finding]:
    """Return where a round's pruned model is not, bit for bit, what follows from its parent and its plan."""
    from tasks.models.checkpoint import save_causal_lm
    from tasks.pruning.causal_lm import student_from_plan

    def write(source: Path, plan: Plan, made: Path) -> None:
        save_causal_lm(student_from_plan(source, plan), source, made)

    return follows(view, RoundPaths(view, name).pruned, name, parent, write)


def measured(view: Path, params: Mapping[str, Any], name: str) -> list[Finding]:
    """Return where the reported quality of a round or the teacher does not follow from its stored blocks and samples.

    Intervals are drawn again with the recorded seed; blocks are compared with those that were prepared.
    """
    paths, teacher = RoundPaths(view, name), RoundPaths(view, TEACHER)
    sets, findings = measured_sets(view, name)
    draws = draws_of(params)
    for set_name, entry in sets.items():
        subject = f"{name}: {set_name}"
        rows, teacher_rows = (pd.read_parquet(place.predictions / f"{set_name}.parquet") for place in (paths, teacher))
        # whatever the tokens of a student are, its text is cut where the teacher's blocks are
        prepared = block_ids(load_blocks(teacher.tokens, set_name))
        findings += same_rows(subject, prepared, rows["row_id"].tolist(), entry["rows_sha256"], "blocks")
        again = measure_blocks(rows, teacher_rows, draws)
        findings += differences(subject, {"overall": again}, entry["slices"])
        if "greedy" in entry["variants"]:
            samples = pd.read_parquet(paths.predictions / f"{SAMPLES}.parquet")["sample"]
            rates = np.array([repetition_rate(sample.tolist()) for sample in samples])
            rate = interval_of_mean(rates, draws)
            findings += differences(subject, {"repetition_rate": rate}, entry["variants"]["greedy"])
    return findings
