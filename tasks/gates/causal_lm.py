"""Evidence from stored blocks of a language model: metrics recomputed block by block, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.gates.evidence import Gathered, Model, Reading, disagreement, gather_from
from tasks.gates.paired import BlockPairs
from tasks.gates.rules import Asked, Measurement, Rule
from tasks.measuring.perplexity import GRAM, exponential, nll_per_token, repetition_rate
from tasks.measuring.predictions import SAMPLES, TEACHERS, read_table


def gather_blocks(rules: Iterable[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    """Return measurements and pairs of blocks for the rules that are about sets: `gather_from`. There are no slices."""
    identity = ("row_id", "tokens", "bytes")
    return gather_from(rules, models, Reading("block", identity, read_table, lambda _: (), _doubt, _measure, _pair))


def _measure(model: Model, rule: Rule, rows: pd.DataFrame, teacher: pd.DataFrame) -> Measurement:
    name, who = str(rule.set), model.who
    if rule.metric == "repetition_rate":
        return _repetition(model, name)
    if rule.metric == "agreement":
        agreed = _agreement(rows, teacher)
        if agreed is None:
            words = f"set {name!r}: {who} or the teacher has not one choice for each token"
            return Measurement(None, doubt=words)
        value = agreed
    else:
        unit = "bytes" if rule.metric == "nll_nats_per_byte" else "tokens"
        value = nll_per_token(rows["nll_nats"].to_numpy(), rows[unit].to_numpy())
        value = float(exponential(value)) if rule.metric == "perplexity" else value
    reported = model.reported(name, "slices", "overall", rule.metric)
    scale = max(1.0, value)  # a perplexity has six decimals whatever its size
    return Measurement(value, len(rows), disagreement(who, value, reported, scale))


def _pair(_rule: Rule, rows: pd.DataFrame, other: pd.DataFrame) -> BlockPairs:
    # the tokens of either side are the teacher's
    return BlockPairs(rows["nll_nats"].to_numpy(), other["nll_nats"].to_numpy(), rows["tokens"].to_numpy())


def _doubt(who: str, rows: pd.DataFrame, _teacher: pd.DataFrame) -> str | None:
    """Return a sentence if tokens, bytes or likelihoods cannot be."""
    for unit in ("tokens", "bytes"):
        if not pd.api.types.is_integer_dtype(rows[unit]) or (rows[unit] < 1).any():
            return f"a block of {who} has no number of {unit}. Evaluate again"
    nats = rows["nll_nats"]
    if not pd.api.types.is_float_dtype(nats) or not np.isfinite(nats).all() or (nats < 0).any():
        return f"{who} has a likelihood that is impossible. Evaluate again"
    return None


def _agreement(rows: pd.DataFrame, teacher: pd.DataFrame) -> float | None:
    """Return the share of first choices that are the teacher's; None where there is not one for each token."""
    if TEACHERS in rows:
        own, others = _choices(rows, "choices", TEACHERS), _choices(rows, TEACHERS, "choices")
    else:
        own, others = _choices(rows, "choices"), _choices(teacher, "choices")
    return None if own is None or others is None else float((own == others).mean())


def _choices(rows: pd.DataFrame, column: str, like: str | None = None) -> NDArray[Any] | None:
    """Return first choices, one for each token of each block, or of those of another column; None if more or fewer."""
    counts = rows["tokens"] if like is None else [len(choices) for choices in rows[like]]
    blocks = zip(rows[column], counts, strict=True)
    if not all(isinstance(choices, np.ndarray) and len(choices) == count for choices, count in blocks):
        return None
    return np.concatenate(rows[column].tolist())


def _repetition(model: Model, name: str) -> Measurement:
    """Return the mean share of repeated 4-grams in the stored continuations of a set."""
    who, reported = model.who, model.reported(name, "variants", "greedy", "repetition_rate")
    if reported is None:
        return Measurement(None, doubt=f"no samples of {who} were drawn on {name!r}")
    stored = read_table(model.predictions / f"{SAMPLES}.parquet", ("sample",))
    if stored is None or stored.empty:
        return Measurement(None, doubt=f"there are no stored samples of {who} on {name!r}")
    samples = stored["sample"].tolist()
    if not all(isinstance(sample, np.ndarray) and len(sample) >= GRAM for sample in samples):
        return Measurement(None, doubt=f"a sample of {who} on {name!r} is no text of at least {GRAM} tokens")
    value = float(np.mean([repetition_rate(sample.tolist()) for sample in samples]))
    return Measurement(value, len(samples), disagreement(who, value, reported))
