"""The typed schema of params.yaml: the one description of a run.

The schema has no defaults: the file shows every value a run uses. Sections are named after the stages that read them; the
longer ones are in `tasks.params_data`, `tasks.params_training`, `tasks.params_rounds` and `tasks.params_gates`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from tasks.evaluation.rules import ONLY_CAUSAL_LM
from tasks.params_data import Data, ValidateData
from tasks.params_gates import Gate, Promotion, check_gates
from tasks.params_parts import Name, Positive, Section, Share
from tasks.params_rounds import AnyRound, Criterion, Round, Trials, check_round, check_rows, trials_of
from tasks.params_training import Distill, Teacher

CLASSIFICATION: Final = "classification"
CAUSAL_LM: Final = "causal_lm"


class Prune(Section):
    """How the structures to keep are chosen; the names are those of `tasks.pruning.criteria.CRITERIA`."""

    criterion: Criterion
    depth: Literal["harm", "block_influence"]
    merge_heads: bool


class Evaluate(Section):
    """What is measured, on how many repeats."""

    bootstrap_resamples: Positive
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    calibration_bins: Positive
    rare_token_share: Share
    latency_batches: list[int]
    latency_tokens: Positive
    latency_repeats: Positive


class Baselines(Section):
    """Honest rivals; `random_init` lists the rounds whose shape is also trained from random weights."""

    random_init: list[str]


class Registry(Section):
    """Name of the registered model in MLflow."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Launcher(Section):
    """Several processes of this machine that train one model together: `tasks.launch`."""

    processes: Positive
    backend: Literal["auto", "gloo", "nccl"]
    strategy: Literal["ddp", "fsdp"]


class Runtime(Section):
    """Where and how the work runs; never part of what a stage depends on."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Positive | None
    launcher: Launcher | None
    compile: Literal["auto"] | bool

    @property
    def sharded(self) -> bool:
        """Whether each process holds a share of the weights alone."""
        return self.launcher is not None and self.launcher.processes > 1 and self.launcher.strategy == "fsdp"

    @model_validator(mode="after")
    def _compiles_whole_models(self) -> Self:
        if self.compile is True and self.sharded:
            raise ValueError("runtime.compile: true is for whole models; set runtime.launcher.strategy: ddp")
        return self


class AnyParams(Section):
    """What the params of every task have; a class for each task adds the rest."""

    seed: Annotated[int, Field(ge=0)]
    prune: Prune
    rounds: Mapping[Name, AnyRound]
    trials: Trials
    baselines: Baselines
    gates: list[Gate]
    promotion: Promotion
    registry: Registry
    runtime: Runtime

    @abstractmethod
    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""


class Params(AnyParams):
    """The whole of params.yaml for the task classification."""

    task: Literal["classification"]
    data: Data
    validate_data: ValidateData
    teacher: Teacher
    distill: Distill
    rounds: dict[Name, Round]
    evaluate: Evaluate

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        return {"data.source": self.data.source, "teacher.model": self.teacher.model}

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> Self:
        for gate in [*self.gates, *self.promotion.gates]:
            if gate.metric in ONLY_CAUSAL_LM:
                raise ValueError(f"gates: metric {gate.metric} is measured of language models, task: causal_lm")
        check_gates(self.gates, self.promotion.gates, self.data.measured_sets)
        return self

    @model_validator(mode="after")
    def _shares_are_enough(self) -> Self:
        for key in ("hidden", "relations", "average"):
            if self.runtime.sharded and getattr(self.distill, key) is not None:
                raise ValueError(f"distill.{key} needs whole weights; set runtime.launcher.strategy: ddp")
        return self

    @model_validator(mode="after")
    def _rounds_shrink(self) -> Self:
        if not self.rounds:
            raise ValueError("rounds: at least one round is needed")
        seen: dict[str, dict[str, int]] = {}
        for name, target in self.rounds.items():
            check_round(name, target, seen)
            check_rows(f"rounds.{name}", target, self.data.transfer.rows + self.data.transfer.spliced_rows)
            if target.search is not None and self.runtime.launcher is not None:
                raise ValueError(
                    f"rounds.{name}.search trains each candidate in one process; set runtime.launcher: null"
                )
            masked = target.granularity != "structured"
            if masked and self.runtime.sharded:
                raise ValueError(f"rounds.{name}: masks need whole weights; set runtime.launcher.strategy: ddp")
            seen[name] = seen.get(target.parent, {}) if masked else target.axes
        for name in self.baselines.random_init:
            if name not in self.rounds:
                raise ValueError(f"baselines.random_init: {name!r} is not a round; allowed: {', '.join(self.rounds)}")
            if self.rounds[name].granularity != "structured":
                raise ValueError(f"baselines.random_init: {name!r} keeps its parent's shape and masks trained weights")
            if self.rounds[name].search is not None:
                raise ValueError(
                    f"baselines.random_init: {name!r} searches for its shape while it trains; give the shape that it found"
                )
        return self

    @model_validator(mode="after")
    def _searches_are_stages(self) -> Self:
        searches = {name: target.search for name, target in self.rounds.items() if target.search is not None}
        if len({(one.candidates, one.keep) for one in searches.values()}) > 1:
            raise ValueError(
                f"rounds: {', '.join(searches)} have a search each; give all of them the same candidates and the same keep"
            )
        wanted = trials_of({name: one.model_dump() for name, one in searches.items()})
        if self.trials.model_dump() != wanted:
            said = ", ".join(f"{key}: [{', '.join(map(str, values))}]" for key, values in wanted.items())
            raise ValueError(
                f"trials: DVC makes a stage of every candidate that a round with search tries; write trials: {{{said}}}"
            )
        return self
