"""Gate rules as plain values, what a rule may ask, and the words in which people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

BOUNDS: Final = ("min", "max", "min_ratio", "max_ratio", "min_gain", "max_drop")

# What is decided row by row or block by block, and so can be shown. Shares of rows have an exact bound and take no `test`.
EXACT: Final = ("agreement", "churn", "confident_disagreement", "flips")
SPREAD: Final = ("expected_drop", "kl_nats_per_example", "prior_gap", "response_gap")  # means over rows of numbers
PAIRED: Final = ("accuracy", "perplexity", *EXACT, *SPREAD)
OF_ORDER: Final = "order_sensitivity"  # of pairs, on the one set on which their texts change places
OF_CHANGES: Final = ("flips", "response_gap")  # what a row and its changed copy say together


class Metric(NamedTuple):
    """A metric as people read it, which kind of number it is, and whether it is of one task alone (c or l) or of both (cl).

    Shares (0 to 1) and levels are measured on sets, counts of a model; a difference is that of two forms of a model.
    """

    words: str
    kind: Literal["share", "level", "count", "difference"]
    tasks: str


# One entry adds a metric; where it is measured says docs/gates.md.
_METRICS: Final[dict[str, Metric]] = {
    "accuracy": Metric("accuracy", "share", "c"),
    "macro_f1": Metric("macro-F1", "share", "c"),
    "nll_nats_per_example": Metric("negative log-likelihood (nats per example)", "level", "c"),
    "calibration_error": Metric("calibration error", "share", "c"),
    "agreement": Metric("agreement", "share", "cl"),
    "kl_nats_per_example": Metric("KL from the teacher (nats per example)", "level", "c"),
    "prior_gap": Metric("prior gap (mean probability of a class, teacher less student)", "share", "c"),
    "expected_drop": Metric("expected drop of accuracy by the calibrated teacher", "share", "c"),
    "confident_disagreement": Metric("disagreement where the teacher is sure", "share", "c"),
    "probability_loyalty": Metric("probability loyalty", "share", "c"),
    "response_gap": Metric("response gap (logits that a change moves the student more than the teacher)", "level", "c"),
    "flips": Metric("flips (share of rows whose prediction a change flips, and not the teacher's)", "share", "c"),
    "order_sensitivity": Metric("order sensitivity (by how much probabilities move when the texts change places)", "share", "c"),
    "churn": Metric("churn (share of rows with another prediction)", "share", "c"),
    "nll_nats_per_token": Metric("negative log-likelihood (nats per token)", "level", "l"),
    "nll_nats_per_byte": Metric("negative log-likelihood (nats per UTF-8 byte)", "level", "l"),
    "perplexity": Metric("perplexity", "level", "l"),
    "repetition_rate": Metric("repetition rate (share of repeated 4-grams in greedy samples)", "share", "l"),
    "params_total": Metric("total parameters", "count", "cl"),
    "params_non_embedding": Metric("non-embedding parameters", "count", "cl"),
    "size_bytes": Metric("bytes of the weights", "count", "cl"),
    "flops_per_example": Metric("FLOPs per example", "count", "c"),
    "flops_per_token": Metric("FLOPs per token", "count", "l"),
    "latency_ms_p50_batch_1": Metric("median latency at batch 1 (ms)", "count", "cl"),
    "load_back_max_difference": Metric("largest difference of logits after loading back", "difference", "cl"),
    "golden_max_difference": Metric("largest difference from the golden logits", "difference", "c"),
    "onnx_max_difference": Metric("largest difference of logits in ONNX", "difference", "c"),
    "cache_mismatched_tokens": Metric("tokens generated otherwise with the key-value cache than without", "difference", "l"),
    "gguf_max_difference": Metric("largest difference of logits in GGUF from the same float16 weights", "difference", "l"),
}
# metric -> does it belong to an evaluation set (and so needs `set`)?
METRICS: Final = {name: metric.kind in ("share", "level") for name, metric in _METRICS.items()}
ONLY_CAUSAL_LM: Final = frozenset(name for name, metric in _METRICS.items() if metric.tasks == "l")
OF_CAUSAL_LM: Final = frozenset(name for name, metric in _METRICS.items() if "l" in metric.tasks)
# Metrics that need no labels: the first are measured on sets without labels alone.
ONLY_UNLABELLED: Final = frozenset((*SPREAD, *OF_CHANGES, "confident_disagreement", "probability_loyalty"))
UNLABELLED: Final = ONLY_UNLABELLED | {"agreement", "churn"}
SHARES: Final = frozenset(name for name, metric in _METRICS.items() if metric.kind == "share")
COUNTS: Final = frozenset(name for name, metric in _METRICS.items() if metric.kind == "count")
ROUNDING: Final = 1e-12  # 0.83 - 0.80 is a little less than 0.03 in floating point
WHO: Final = {
    "teacher": "the teacher",
    "parent": "the parent round",
    "tfidf_logistic": "TF-IDF + logistic regression",
    "second_text_alone": "the second text alone",
    "champion": "the champion",
}
WHOSE: Final = {
    "teacher": "the teacher's",
    "parent": "its parent's",
    "tfidf_logistic": "the TF-IDF baseline's",
    "second_text_alone": "the second-text baseline's",
    "champion": "the champion's",
}
# What is answered by yes or no, and the section of params.yaml in which it can be asked.
CHECKS: Final = {
    "data_validated": "gates",
    "no_overlap": "gates",
    "clean_git": "promotion.gates",
    "lineage": "promotion.gates",
    "golden": "promotion.gates",
    "serves": "promotion.gates",
}

# Of a language model there are no golden answers, and its rows are blocks, in which a leaked text has another name.
CHECKS_OF_CAUSAL_LM: Final = ("data_validated", "clean_git", "lineage")

Key = tuple[str, str, str | None, str]  # (who, metric, set, slice); who: student, teacher or a rival


@dataclass(frozen=True)
class Rule:
    """One rule of params.yaml: a metric, what it is compared with, one bound, and whether it blocks or warns.

    `slices` is a pattern: the rule is asked of every slice that matches; so is a `set` with a star. With `confidence` the bound
    must be shown, not only measured: `prove` says which of the two needs the proof, that it is kept or that it is broken.
    """

    metric: str
    set: str | None
    slice: str
    versus: str | None
    bound: str
    threshold: float
    severity: str
    slices: str | None = None
    test: str | None = None
    confidence: float | None = None
    prove: str = "kept"
    min_support: int = 1
    resamples: int = 10_000

    @property
    def is_paired(self) -> bool:
        """Return whether the rule is decided on counts of rows that two models predict differently."""
        return self.metric == "churn" or self.confidence is not None

    @property
    def is_of_many_sets(self) -> bool:
        """Return whether `set` is a pattern."""
        return self.set is not None and "*" in self.set

    @property
    def paired_by(self) -> tuple[str, str, str]:
        """Return under which name its rows are paired: with which model, or by a metric that compares with the teacher itself."""
        return self.versus or self.metric, self.set or "", self.slice

    def parts(self, slices: Mapping[str, Sequence[str]]) -> list[Rule]:
        """Return one rule for each set and slice that the patterns match; the rule itself without a pattern."""
        sets = sorted(name for name in slices if fnmatchcase(name, self.set or "")) if self.is_of_many_sets else [self.set]
        return [part for name in sets for part in replace(self, set=name).of_slices(slices.get(name or "", ()))]

    def of_slices(self, names: Sequence[str]) -> list[Rule]:
        """Return one rule for each slice of `names` that matches the pattern; the rule itself without a pattern."""
        if self.slices is None:
            return [self]
        return [replace(self, slice=name, slices=None) for name in names if name != "overall" and fnmatchcase(name, self.slices)]


@dataclass(frozen=True)
class Asked:
    """One rule of params.yaml that is answered by yes or no."""

    name: str
    severity: str


@dataclass(frozen=True)
class Answer:
    """What a check found: pass, fail or hold, in a sentence."""

    result: str
    sentence: str


@dataclass(frozen=True)
class Measurement:
    """A measured value, on how many rows (None: not a matter of rows), and a sentence if it cannot be trusted."""

    value: object
    support: int | None = None
    doubt: str | None = None


def keeps(rule: Rule, value: float) -> bool:
    """Return whether a value keeps the rule's bound, differences of rounding forgiven."""
    if rule.bound.startswith("min"):
        return value >= rule.threshold - ROUNDING
    return value <= rule.threshold + ROUNDING


def subject(rule: Rule) -> str:
    """Return what a rule is about: `accuracy on test (class:negative)`."""
    place = f" on {rule.set}" if rule.set else ""
    name = rule.slices or rule.slice
    part = f" ({name})" if rule.set and name != "overall" else ""
    return f"{_METRICS[rule.metric].words}{place}{part}"


def possessive(versus: str | None) -> str:
    """Return `the teacher's`, and so on."""
    return WHOSE.get(versus or "", f"{versus}'s")


def formatted(metric: str, number: float) -> str:
    """Return a number as people write it: shares with three decimals, counts in groups of three."""
    if METRICS[metric]:
        return f"{number:.3f}"
    if metric.endswith("_difference"):
        return f"{number:.2g}".replace("e-0", "e-")
    return f"{number:.2f}" if "latency" in metric else f"{number:,.0f}"


def points(difference: float) -> str:
    """Return a difference of shares in words: `1.6 points below`."""
    return f"{100 * abs(difference):.1f} points {'above' if difference >= 0 else 'below'}"
