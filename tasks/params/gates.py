"""The schema of rules: what a round must keep, and what is asked of a model that is to become champion."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.artifacts import STRESS
from tasks.gates.rules import (
    BOUNDS,
    CHECKS,
    CHECKS_OF_CAUSAL_LM,
    COUNTS,
    EXACT,
    METRICS,
    OF_CAUSAL_LM,
    OF_CHANGES,
    ONLY_CAUSAL_LM,
    ONLY_UNLABELLED,
    PAIRED,
    SPREAD,
    UNLABELLED,
    Asked,
    Rule,
)
from tasks.params.parts import CAUSAL_LM, CLASSIFICATION, MODELS, Confidence, Finite, Positive, Section, did_you_mean, refusal

MEASURED: Final[Mapping[str, Collection[str]]] = {CLASSIFICATION: METRICS.keys() - ONLY_CAUSAL_LM, CAUSAL_LM: OF_CAUSAL_LM}
ANSWERED: Final[Mapping[str, Collection[str]]] = {CLASSIFICATION: CHECKS, CAUSAL_LM: CHECKS_OF_CAUSAL_LM}

RIVALS: Final = ("tfidf_logistic", "second_text_alone")
REMOTE: Final = r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$"


class Gate(Section):
    """One rule a round must keep: a metric with exactly one bound, or a check. Its keys alone may be left out."""

    check: str | None = None
    metric: str | None = None
    set: str | None = None
    slice: str | None = None
    slices: str | None = None
    versus: Literal["teacher", "parent", "tfidf_logistic", "second_text_alone", "champion"] | None = None
    min: Finite | None = None
    max: Finite | None = None
    min_ratio: Finite | None = None
    max_ratio: Finite | None = None
    min_gain: Finite | None = None
    max_drop: Finite | None = None
    test: Literal["paired_bootstrap", "mcnemar"] | None = None
    confidence: Confidence | None = None
    prove: Literal["kept", "broken"] | None = None
    min_support: Positive | None = None
    resamples: Annotated[int, Field(ge=1000)] | None = None
    severity: Literal["block", "warn"] = "block"

    @property
    def bound(self) -> str:
        """Return the name of the one bound that is given."""
        return next(name for name in BOUNDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _is_one_comparison(self) -> Self:
        if self.metric is None or self.check is not None:
            return self._checked()
        given = [bound for bound in BOUNDS if getattr(self, bound) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(BOUNDS)} is needed; got {', '.join(given) or 'none'}")
        if self.metric not in METRICS:
            hint = did_you_mean(self.metric, METRICS)
            raise ValueError(f"metric {self.metric!r} is not one of {', '.join(sorted(METRICS))}{hint}")
        if self.metric == "churn" and (given[0] != "max" or self.versus is None):
            raise ValueError("churn counts rows that change against another model: it needs `versus` and `max`")
        if self.metric != "churn" and (given[0] in ("min", "max")) == (self.versus is not None):
            raise ValueError(f"{given[0]} {'takes no' if self.versus else 'needs'} `versus`")
        if METRICS[self.metric] != (self.set is not None):
            raise ValueError(f"metric {self.metric} {'needs' if METRICS[self.metric] else 'takes no'} `set`")
        return self

    def _checked(self) -> Self:
        """Return the rule if it is a check and nothing else; a check has no number and so takes no bound."""
        if self.check is None or self.metric is not None:
            raise ValueError("a rule has either `metric` or `check`")
        if self.check not in CHECKS:
            hint = did_you_mean(self.check, CHECKS)
            raise ValueError(f"check {self.check!r} is not one of {', '.join(sorted(CHECKS))}{hint}")
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}  # receipts name every key
        idle = sorted(given - {"check", "severity"})
        if idle:
            raise ValueError(f"check {self.check} takes `severity` alone; {', '.join(idle)} would change nothing")
        return self

    @model_validator(mode="after")
    def _has_no_idle_key(self) -> Self:
        if self.check is not None:
            return self
        if self.set is None and (self.slice or self.slices or self.min_support):
            raise ValueError(f"metric {self.metric} is not measured on rows: it takes no slice, slices or min_support")
        if self.slice is not None and self.slices is not None:
            raise ValueError("`slice` names one slice and `slices` is a pattern of several; give one of them")
        if (self.confidence is not None or self.slices is not None) and self.min_support is None:
            raise ValueError("`min_support` is needed with `confidence` or `slices`: fewer rows than it prove nothing")
        if (self.test is not None) != (self.confidence is not None and self.metric not in EXACT):
            raise ValueError(f"`test` and `confidence` need each other ({', '.join(EXACT)} have exact bounds and take no `test`)")
        if (
            self.confidence is not None
            and self.metric in EXACT
            and self.bound != ("min" if self.metric == "agreement" else "max")
        ):
            raise ValueError(f"with `confidence` {self.metric} takes {'min' if self.metric == 'agreement' else 'max'} alone")
        if self.metric in OF_CHANGES and not (self.slices or self.slice or "").startswith("change:"):
            raise ValueError(f'{self.metric} is of a kind of change: give slices: "change:*", or slice: change:NAME')
        if self.set is not None and "*" in self.set and (self.min_support is None or not self.set.startswith(STRESS)):
            raise ValueError(f"a `set` with a star is of sets without labels, {STRESS}*, and needs `min_support`")
        if self.test is not None:
            self._check_test()
        if self.confidence is not None and self.metric not in PAIRED:
            raise ValueError(f"`confidence` is for {', '.join(PAIRED)}")
        if self.prove is not None and self.confidence is None:
            raise ValueError("`prove` says what has to be shown; without `confidence` it changes nothing")
        if self.prove is not None and self.metric == "churn":
            raise ValueError("churn is shown to be kept by its exact bound; it takes no `prove`")
        if self.resamples is not None and self.test != "paired_bootstrap":
            raise ValueError("`resamples` belongs to test: paired_bootstrap")
        return self

    def _check_test(self) -> None:
        """Raise ValueError unless the rule compares what a `test` can compare."""
        if self.metric == "perplexity":
            if self.bound != "max_ratio" or self.test != "paired_bootstrap":
                raise ValueError("perplexities are compared by test: paired_bootstrap and max_ratio")
            return
        if self.metric in SPREAD:
            if self.bound != "max" or self.test != "paired_bootstrap":
                raise ValueError(f"{self.metric} is shown by test: paired_bootstrap and max")
            return
        if self.metric != "accuracy" or self.bound not in ("max_drop", "min_gain"):
            raise ValueError(
                "`test` compares accuracies: it needs metric accuracy and max_drop or min_gain; or perplexity and max_ratio"
            )
        if not 0.0 <= getattr(self, self.bound) < 1.0:
            raise ValueError(f"{self.bound} is a share of rows here: at least 0 and below 1 (0.02 is 2 points)")


class Approval(Section):
    """Who must sign before a model becomes champion; `approvers` is name -> public ed25519 key, or a file with such lines."""

    quorum: Positive
    not_author: bool
    ttl_hours: Annotated[float, Field(gt=0, le=8760)]
    approvers: str | dict[str, str]

    @field_validator("approvers", mode="plain")
    @classmethod
    def _is_file_or_keys(cls, value: object) -> object:
        if isinstance(value, str) or (
            isinstance(value, dict) and value and all(isinstance(x, str) for pair in value.items() for x in pair)
        ):
            return value
        raise ValueError(f"got {value!r}; allowed: a file's name, or NAME: ssh-ed25519 KEY for each approver")


class Promotion(Section):
    """What is asked once more when a model is to become champion; here a rule may be `versus: champion`."""

    gates: list[Gate]
    approval: Approval | None
    remote: Annotated[str, Field(pattern=REMOTE)] | None = None  # of Git, where the decisions of all clones come together


def gate_faults(
    task: str, both: tuple[Sequence[Gate], Sequence[Gate]], sets: Sequence[str], unlabelled: Sequence[str]
) -> Iterator[str]:
    """Return a sentence for each rule that asks for what is not measured, or is asked where nothing can answer it.

    `both` are the rules of `gates` and of `promotion.gates`; `sets` have labels, those in `unlabelled` have none.
    """
    gates, of_promotion = both
    for where, asked in (("gates", gates), ("promotion.gates", of_promotion)):
        for place, gate in enumerate(asked):
            yield from _faults_of_gate(task, f"{where}.{place}", gate, sets, unlabelled)
            if gate.check is not None and CHECKS[gate.check] != where:
                yield f"{where}.{place}.check: {gate.check} is asked in {CHECKS[gate.check]}"
    if any(gate.set is not None and "*" in gate.set for gate in of_promotion):
        yield "promotion.gates: a `set` with a star is asked in gates; here name each set"
    if any(gate.metric == "expected_drop" for gate in of_promotion):
        yield "promotion.gates: expected_drop is asked in gates, where the teacher is calibrated"
    if any(gate.versus == "champion" for gate in gates):
        yield "gates: who is champion is known to the registry only; ask `versus: champion` in promotion.gates"
    if any(gate.versus in (*RIVALS, "parent") for gate in of_promotion):
        yield f"promotion.gates: versus {', '.join(RIVALS)} and parent are asked in gates; here it is teacher or champion"
    if any(gate.metric and not METRICS[gate.metric] and gate.metric not in COUNTS for gate in of_promotion):
        yield f"promotion.gates: differences of exports are asked in gates; here {', '.join(sorted(COUNTS))}"


def _faults_of_gate(task: str, where: str, gate: Gate, sets: Sequence[str], unlabelled: Sequence[str]) -> Iterator[str]:
    if gate.check is not None and gate.check not in ANSWERED[task]:
        yield f"{where}.check: {gate.check} cannot be answered of {MODELS[task]}; allowed: {', '.join(ANSWERED[task])}"
    if gate.metric is not None and gate.metric not in MEASURED[task]:
        allowed = ", ".join(sorted(MEASURED[task]))
        yield f"{where}.metric: {gate.metric!r} is not measured of {MODELS[task]}; allowed: {allowed}"
    no_slices = refusal(task, "slices")
    if no_slices and (gate.versus in RIVALS or gate.slice or gate.slices):
        yield f"{where}: {no_slices}"
    if gate.metric == "agreement" and gate.confidence is not None and task == CAUSAL_LM:
        yield f"{where}: agreement of language models is of tokens, which are not drawn one by one: it takes no confidence"
    if gate.set is not None and gate.metric in MEASURED[task]:
        yield from _set_faults(where, gate, sets, unlabelled)


def _set_faults(where: str, gate: Gate, sets: Sequence[str], unlabelled: Sequence[str]) -> Iterator[str]:
    """Return what is wrong with the set of a rule: none of that name, or not with what the metric needs."""
    name, metric = str(gate.set), str(gate.metric)
    is_pattern, every = "*" in name, [*sets, *unlabelled]
    if not is_pattern and name not in every:
        yield f"{where}.set: {name!r} is not one of {', '.join(every)}{did_you_mean(name, every)}"
        return
    if (is_pattern or name in unlabelled) and metric not in UNLABELLED:
        yield f"{where}.set: {name} has no labels, so {metric} is not measured; allowed: {', '.join(sorted(UNLABELLED))}"
    if name in sets and metric in ONLY_UNLABELLED:
        others = f"name one of {', '.join(unlabelled)}" if unlabelled else "make one with data.stress"
        yield f"{where}.set: {metric} is measured on sets without labels; {others}"
    is_of_copies = name in unlabelled and not name.startswith(STRESS)
    if metric in OF_CHANGES and not is_of_copies and (is_pattern or name in unlabelled):
        yield f"{where}.set: {metric} is of changed copies, and {name} has none; name the set that data.stress.changed makes"
    if is_of_copies and not (gate.slices or gate.slice or "").startswith("change:"):
        yield f'{where}: the rows of {name} are copies of each other; give slices: "change:*", or slice: change:NAME'


def rule_of(gate: Gate) -> Rule | Asked:
    """Return a gate of params.yaml as a plain rule."""
    if gate.metric is None:
        return Asked(str(gate.check), gate.severity)
    threshold = float(getattr(gate, gate.bound))
    plain = Rule(gate.metric, gate.set, gate.slice or "overall", gate.versus, gate.bound, threshold, gate.severity)
    names = ("slices", "test", "confidence", "prove", "min_support", "resamples")
    return replace(plain, **{name: value for name in names if (value := getattr(gate, name)) is not None})
