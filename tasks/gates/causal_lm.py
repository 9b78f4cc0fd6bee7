"""Evidence from stored blocks of a language model: metrics recomputed block by block, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.gates.classification import Gathered, Model, disagreement
from tasks.gates.judge import Paired, PairKey
from tasks.gates.paired import BlockPairs
from tasks.gates.rules import METRICS, WHO, Asked, Key, Measurement, Rule
from tasks.measuring.causal_lm import SAMPLES, TEACHERS, _read, read_block_predictions
from tasks.measuring.perplexity import GRAM, exponential, nll_per_token, repetition_rate


def gather_blocks(rules: Iterable[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    """Return measurements and pairs of blocks for the rules that are about sets, as `tasks.gates.classification.gather` does.

    There are no slices. `models` has `student`, `teacher` (whose blocks everybody must share) and those that rules are
    `versus`.
    """
    evidence: dict[Key, Measurement] = {}
    pairs: dict[PairKey, Paired] = {}
    for rule in rules:
        if isinstance(rule, Asked) or rule.set is None or not METRICS[rule.metric]:
            continue
        for who in ("student", rule.versus):
            if who is not None:
                evidence[who, rule.metric, rule.set, "overall"] = _measure(models, who, rule.metric, rule.set)
        if rule.is_paired and rule.versus is not None:
            pairs[rule.versus, rule.set, "overall"] = _pair(models, rule.versus, rule.set)
    return evidence, pairs, {}


def _pair(models: Mapping[str, Model], versus: str, name: str) -> BlockPairs | str:
    """Return what student and another say of the same blocks, or the sentence why that is not known."""
    mine, theirs = _sound(models, "student", name), _sound(models, versus, name)
    for found in (mine, theirs):
        if isinstance(found, str):
            return found
    assert not isinstance(mine, str)
    assert not isinstance(theirs, str)
    tokens = mine[0]["tokens"].to_numpy()  # each side's are the teacher's
    return BlockPairs(mine[0]["nll_nats"].to_numpy(), theirs[0]["nll_nats"].to_numpy(), tokens)


def _measure(models: Mapping[str, Model], who: str, metric: str, name: str) -> Measurement:
    found = _sound(models, who, name)
    if isinstance(found, str):
        return Measurement(None, doubt=found)
    if metric == "repetition_rate":
        return _repetition(models[who], who, name)
    rows, teacher = found
    if metric == "agreement":
        mine, theirs = _choices(rows, "choices"), _choices(teacher, "choices")
        if TEACHERS in rows:
            mine, theirs = _choices(rows, "choices", TEACHERS), _choices(rows, TEACHERS, "choices")
        if mine is None or theirs is None:
            return Measurement(None, doubt=f"set {name!r}: {who} or the teacher has not one choice for each token")
        value = float((mine == theirs).mean())
    else:
        unit = "bytes" if metric == "nll_nats_per_byte" else "tokens"
        value = nll_per_token(rows["nll_nats"].to_numpy(), rows[unit].to_numpy())
        value = float(exponential(value)) if metric == "perplexity" else value
    told = models[who].sets[name].get("slices", {}).get("overall", {}).get(metric, {}).get("value")
    scale = max(1.0, value)  # a perplexity has six decimals whatever its size
    return Measurement(value, len(rows), disagreement(who, value, told, scale))


def _choices(rows: pd.DataFrame, column: str, like: str | None = None) -> NDArray[Any] | None:
    """Return first choices, one for each token of each block, or of those of another column; None if more or fewer."""
    counts = rows["tokens"] if like is None else [len(one) for one in rows[like]]
    every = zip(rows[column], counts, strict=True)
    if not all(isinstance(one, np.ndarray) and len(one) == count for one, count in every):
        return None
    return np.concatenate(rows[column].tolist())


def _repetition(model: Model, who: str, name: str) -> Measurement:
    """Return the mean share of repeated 4-grams in the stored continuations of a set."""
    told = model.sets[name].get("variants", {}).get("greedy", {}).get("repetition_rate", {}).get("value")
    if told is None:
        return Measurement(None, doubt=f"no samples of {who} were drawn on {name!r}")
    stored = _read(model.predictions / f"{SAMPLES}.parquet", ("sample",))
    if stored is None or stored.empty:
        return Measurement(None, doubt=f"there are no stored samples of {who} on {name!r}")
    samples = stored["sample"].tolist()
    if not all(isinstance(one, np.ndarray) and len(one) >= GRAM for one in samples):
        return Measurement(None, doubt=f"a sample of {who} on {name!r} is no text of at least {GRAM} tokens")
    value = float(np.mean([repetition_rate(one.tolist()) for one in samples]))
    return Measurement(value, len(samples), disagreement(who, value, told))


def _sound(models: Mapping[str, Model], who: str, name: str) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """Return a model's blocks and the teacher's on a set, or the sentence why they prove nothing."""
    for one in (who, "teacher"):
        if one not in models:
            return f"there is no evaluation of {WHO.get(one, one)}"
        if name not in models[one].sets:
            return f"quality.json of {one} has no set {name!r}; it has {', '.join(sorted(models[one].sets))}"
        if models[one].sets[name].get("rows_sha256") is None:
            return f"set {name!r} has no rows_sha256 for {one}"
    rows, teacher = (read_block_predictions(models[one].predictions / f"{name}.parquet") for one in (who, "teacher"))
    if rows is None or teacher is None:
        return f"there are no predictions of {who} or the teacher on {name!r}"
    return _doubt(who, name, rows, teacher, models[who].sets[name], models["teacher"].sets[name]) or (rows, teacher)


def _doubt(
    who: str,
    name: str,
    rows: pd.DataFrame,
    teacher: pd.DataFrame,
    reported: Mapping[str, Any],
    teachers: Mapping[str, Any],
) -> str | None:
    """Return a sentence if the blocks are not those on which the teacher was measured, or cannot be."""
    if rows.empty:
        return f"set {name!r}: the predictions of {who} are empty. Evaluate again"
    same = all(rows[column].tolist() == teacher[column].tolist() for column in ("row_id", "tokens", "bytes"))
    if not same or reported["rows_sha256"] != teachers["rows_sha256"] or reported["rows"] != len(rows):
        return f"set {name!r}: {who} and the teacher were measured on different blocks. Evaluate both again"
    if rows["row_id"].duplicated().any():
        return f"set {name!r}: a block counts more than once in the predictions of {who}. Prepare and evaluate again"
    for unit in ("tokens", "bytes"):
        if not pd.api.types.is_integer_dtype(rows[unit]) or (rows[unit] < 1).any():
            return f"set {name!r}: a block of {who} has no number of {unit}. Evaluate again"
    nats = rows["nll_nats"]
    if not pd.api.types.is_float_dtype(nats) or not np.isfinite(nats).all() or (nats < 0).any():
        return f"set {name!r}: {who} has a likelihood that is impossible. Evaluate again"
    return None
