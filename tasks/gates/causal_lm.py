"""Evidence from stored blocks of a language model: metrics recomputed block by block, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.gates.evidence import Gathered, Model, disagreement, gather_from
from tasks.gates.paired import BlockPairs
from tasks.gates.rules import WHO, Asked, Measurement, Rule
from tasks.measuring.perplexity import GRAM, exponential, nll_per_token, repetition_rate
from tasks.measuring.predictions import SAMPLES, TEACHERS, read_table


def gather_blocks(rules: Iterable[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    """Return measurements and pairs of blocks for the rules that are about sets, as `tasks.gates.classification.gather` does.

    There are no slices. `models` has `student`, `teacher` (whose blocks everybody must share) and those that rules are
    `versus`.
    """
    evidence, pairs, _ = gather_from(_Evaluations(models), rules)
    return evidence, pairs, {}


@dataclass(frozen=True)
class _Evaluations:
    models: Mapping[str, Model]

    def slices(self, _name: str) -> Sequence[str]:
        """Return none: blocks have no slices."""
        return ()

    def measure(self, who: str, rule: Rule) -> Measurement:
        """Return a metric recomputed from blocks, doubtful if it differs from the report or the blocks do."""
        assert rule.set is not None  # the schema asks for it
        sound = self._sound(who, rule.set)
        if isinstance(sound, str):
            return Measurement(None, doubt=sound)
        if rule.metric == "repetition_rate":
            return _repetition(self.models[who], who, rule.set)
        rows, teacher = sound
        if rule.metric == "agreement":
            agreed = _agreement(rows, teacher)
            if agreed is None:
                words = f"set {rule.set!r}: {who} or the teacher has not one choice for each token"
                return Measurement(None, doubt=words)
            value = agreed
        else:
            unit = "bytes" if rule.metric == "nll_nats_per_byte" else "tokens"
            value = nll_per_token(rows["nll_nats"].to_numpy(), rows[unit].to_numpy())
            value = float(exponential(value)) if rule.metric == "perplexity" else value
        reported = self.models[who].reported(rule.set, "slices", "overall", rule.metric)
        scale = max(1.0, value)  # a perplexity has six decimals whatever its size
        return Measurement(value, len(rows), disagreement(who, value, reported, scale))

    def pair(self, versus: str, rule: Rule) -> BlockPairs | str:
        """Return what student and another say of the same blocks, or the sentence why that is not known."""
        assert rule.set is not None
        student, other = self._sound("student", rule.set), self._sound(versus, rule.set)
        if isinstance(student, str):
            return student
        if isinstance(other, str):
            return other
        rows = student[0]  # the tokens of either side are the teacher's
        return BlockPairs(rows["nll_nats"].to_numpy(), other[0]["nll_nats"].to_numpy(), rows["tokens"].to_numpy())

    def _sound(self, who: str, name: str) -> tuple[pd.DataFrame, pd.DataFrame] | str:
        """Return a model's blocks and the teacher's on a set, or the sentence why they prove nothing."""
        for each in (who, "teacher"):
            if each not in self.models:
                return f"there is no evaluation of {WHO.get(each, each)}"
            sets = self.models[each].sets
            if name not in sets:
                return f"quality.json of {each} has no set {name!r}; it has {', '.join(sorted(sets))}"
            if sets[name].get("rows_sha256") is None:
                return f"set {name!r} has no rows_sha256 for {each}"
        model, teacher = self.models[who], self.models["teacher"]
        rows, teachers = (read_table(each.predictions / f"{name}.parquet") for each in (model, teacher))
        if rows is None or teachers is None:
            return f"there are no predictions of {who} or the teacher on {name!r}"
        same = model.sets[name]["rows_sha256"] == teacher.sets[name]["rows_sha256"]
        doubt = _doubt(who, rows, teachers, same and model.sets[name]["rows"] == len(rows))
        return f"set {name!r}: {doubt}" if doubt is not None else (rows, teachers)


def _doubt(who: str, rows: pd.DataFrame, teacher: pd.DataFrame, as_reported: bool) -> str | None:
    """Return a sentence if the blocks are not those on which the teacher was measured, or cannot be."""
    if rows.empty:
        return f"the predictions of {who} are empty. Evaluate again"
    same = all(rows[column].tolist() == teacher[column].tolist() for column in ("row_id", "tokens", "bytes"))
    if not same or not as_reported:
        return f"{who} and the teacher were measured on different blocks. Evaluate both again"
    if rows["row_id"].duplicated().any():
        return f"a block counts more than once in the predictions of {who}. Prepare and evaluate again"
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


def _repetition(model: Model, who: str, name: str) -> Measurement:
    """Return the mean share of repeated 4-grams in the stored continuations of a set."""
    reported = model.reported(name, "variants", "greedy", "repetition_rate")
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
