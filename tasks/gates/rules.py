"""Gate rules as plain values, what a rule may ask, and the words in which people read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

BOUNDS: Final = ("min", "max", "min_ratio", "max_ratio", "min_gain", "max_drop")

PAIRED: Final = ("accuracy", "churn", "perplexity")  # what is decided row by row or block by block, and so has tests

# metric -> does it belong to an evaluation set (and so needs `set`)?
METRICS: Final[dict[str, bool]] = {
    "accuracy": True,
    "macro_f1": True,
    "nll_nats_per_example": True,
    "calibration_error": True,
    "agreement": True,
    "churn": True,
    "nll_nats_per_token": True,
    "nll_nats_per_byte": True,
    "perplexity": True,
    "repetition_rate": True,
    "params_total": False,
    "params_non_embedding": False,
    "size_bytes": False,
    "flops_per_example": False,
    "flops_per_token": False,
    "latency_ms_p50_batch_1": False,
    "load_back_max_difference": False,
    "golden_max_difference": False,
    "onnx_max_difference": False,
    "cache_mismatched_tokens": False,
    "gguf_max_difference": False,
}
# What is measured of language models: of them alone, and of classifiers too.
ONLY_CAUSAL_LM: Final = frozenset(
    {
        "nll_nats_per_token",
        "nll_nats_per_byte",
        "perplexity",
        "repetition_rate",
        "flops_per_token",
        "cache_mismatched_tokens",
        "gguf_max_difference",
    }
)
OF_CAUSAL_LM: Final = ONLY_CAUSAL_LM | {
    "agreement",
    "params_total",
    "params_non_embedding",
    "size_bytes",
    "latency_ms_p50_batch_1",
    "load_back_max_difference",
}

SHARES: Final = frozenset({"accuracy", "macro_f1", "calibration_error", "agreement", "churn", "repetition_rate"})
COUNTS: Final = frozenset(
    {
        "params_total",
        "params_non_embedding",
        "size_bytes",
        "flops_per_example",
        "flops_per_token",
        "latency_ms_p50_batch_1",
    }
)
ROUNDING: Final = 1e-12  # 0.83 - 0.80 is a little less than 0.03 in floating point
NAMES: Final = {
    "nll_nats_per_example": "negative log-likelihood (nats per example)",
    "nll_nats_per_token": "negative log-likelihood (nats per token)",
    "nll_nats_per_byte": "negative log-likelihood (nats per UTF-8 byte)",
    "repetition_rate": "repetition rate (share of repeated 4-grams in greedy samples)",
    "cache_mismatched_tokens": "tokens generated otherwise with the key-value cache than without",
    "flops_per_token": "FLOPs per token",
    "params_total": "total parameters",
    "params_non_embedding": "non-embedding parameters",
    "size_bytes": "bytes of the weights",
    "flops_per_example": "FLOPs per example",
    "latency_ms_p50_batch_1": "median latency at batch 1 (ms)",
    "load_back_max_difference": "largest difference of logits after loading back",
    "golden_max_difference": "largest difference from the golden logits",
    "onnx_max_difference": "largest difference of logits in ONNX",
    "gguf_max_difference": "largest difference of logits in GGUF from the same float16 weights",
    "macro_f1": "macro-F1",
    "churn": "churn (share of rows with another prediction)",
}
WHO: Final = {
    "teacher": "the teacher",
    "parent": "the parent round",
    "tfidf_logistic": "TF-IDF + logistic regression",
    "champion": "the champion",
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

    `slices` is a pattern: the rule is asked of every slice that matches. With `confidence` the bound must be shown, not
    only measured: `prove` says which of the two needs the proof, that it is kept or that it is broken.
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

    def of_slices(self, names: Sequence[str]) -> list[Rule]:
        """Return one rule for each slice of `names` that matches the pattern; the rule itself without a pattern."""
        if self.slices is None:
            return [self]
        return [
            replace(self, slice=name, slices=None)
            for name in names
            if name != "overall" and fnmatchcase(name, self.slices)
        ]


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
    return f"{NAMES.get(rule.metric, rule.metric.replace('_', ' '))}{place}{part}"


def possessive(versus: str | None) -> str:
    """Return `the teacher's`, and so on."""
    names = {
        "teacher": "the teacher's",
        "parent": "its parent's",
        "tfidf_logistic": "the TF-IDF baseline's",
        "champion": "the champion's",
    }
    return names.get(versus or "", f"{versus}'s")


def formatted(metric: str, number: float) -> str:
    """Return a number as people write it: shares with three decimals, counts in groups of three."""
    if metric in SHARES or metric.startswith("nll_") or metric == "perplexity":
        return f"{number:.3f}"
    if metric.endswith("_difference"):
        return f"{number:.2g}".replace("e-0", "e-")
    return f"{number:.2f}" if "latency" in metric else f"{number:,.0f}"


def points(difference: float) -> str:
    """Return a difference of shares in words: `1.6 points below`."""
    return f"{100 * abs(difference):.1f} points {'above' if difference >= 0 else 'below'}"
