"""Evidence from stored blocks of a language model: metrics recomputed block by block, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.evaluation.evidence import Gathered, Model, disagreement
from tasks.evaluation.perplexity import nll_per_token
from tasks.evaluation.rules import METRICS, WHO, Check, Key, Measurement, Rule

COLUMNS = ("row_id", "tokens", "nll_nats", "choices", "agreed")


def read_block_predictions(path: Path) -> pd.DataFrame | None:
    """Return the stored blocks of a set; None if the file cannot be read as such."""
    try:
        return pd.read_parquet(path, columns=list(COLUMNS))
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None


def gather_blocks(rules: Iterable[Rule | Check], models: Mapping[str, Model]) -> Gathered:
    """Return measurements for the rules that are about sets, in the form of `tasks.evaluation.evidence.gather`.

    There are no pairs of rows and no slices. `models` has `student`, `teacher` (whose blocks everybody must share) and
    those that rules are `versus`.
    """
    evidence: dict[Key, Measurement] = {}
    for rule in rules:
        if isinstance(rule, Check) or rule.set is None or not METRICS[rule.metric]:
            continue
        for who in ("student", rule.versus):
            if who is not None:
                evidence[who, rule.metric, rule.set, "overall"] = _measure(models, who, rule.metric, rule.set)
    return evidence, {}, {}


def _measure(models: Mapping[str, Model], who: str, metric: str, name: str) -> Measurement:
    found = _sound(models, who, name)
    if isinstance(found, str):
        return Measurement(None, doubt=found)
    rows, teacher = found
    reported = models[who].sets[name]
    if metric == "repetition_rate":
        told = reported.get("variants", {}).get("greedy", {}).get(metric, {}).get("value")
        return Measurement(told, doubt=None if told is not None else f"no samples were drawn on {name!r}")
    if metric == "agreement":
        same = np.stack(rows["choices"].tolist()) == np.stack(teacher["choices"].tolist())
        value = float(same.sum() / rows["tokens"].sum())
    else:
        value = nll_per_token(rows["nll_nats"].to_numpy(), rows["tokens"].to_numpy())
        value = float(np.exp(value)) if metric == "perplexity" else value
    told = reported.get("slices", {}).get("overall", {}).get(metric, {}).get("value")
    scale = max(1.0, value)  # a perplexity has six decimals whatever its size
    return Measurement(value, len(rows), disagreement(who, value, told, scale))


def _sound(models: Mapping[str, Model], who: str, name: str) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """Return a model's blocks and the teacher's on a set, or the sentence why they prove nothing."""
    for one in (who, "teacher"):
        if one not in models:
            return f"there is no evaluation of {WHO.get(one, one)}"
        if name not in models[one].sets:
            return f"quality.json of {one} has no set {name!r}; it has {', '.join(sorted(models[one].sets))}"
    rows, teacher = (read_block_predictions(models[one].predictions / f"{name}.parquet") for one in (who, "teacher"))
    if rows is None or teacher is None or rows.empty:
        return f"there are no predictions of {who} or the teacher on {name!r}"
    same = rows["row_id"].tolist() == teacher["row_id"].tolist() and rows["tokens"].equals(teacher["tokens"])
    if not same or models[who].sets[name]["rows_sha256"] != models["teacher"].sets[name]["rows_sha256"]:
        return f"set {name!r}: {who} and the teacher were measured on different blocks. Evaluate both again"
    if not np.isfinite(rows["nll_nats"]).all() or (rows["nll_nats"] < 0).any():
        return f"set {name!r}: {who} has a likelihood that is impossible. Evaluate again"
    return rows, teacher
