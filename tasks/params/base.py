"""The typed schema of params.yaml: the one description of a run. Here is what every task has.

The schema has no defaults: the file shows every value a run uses. Sections are named after the stages that read them; what
differs by task is in `tasks.params.classification` and `tasks.params.causal_lm`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PlainValidator, field_validator, model_validator

from tasks.params.gates import Gate, Promotion, gate_faults
from tasks.params.parts import CAUSAL_LM as CAUSAL_LM
from tasks.params.parts import CLASSIFICATION as CLASSIFICATION
from tasks.params.parts import Confidence, Count, Drift, Name, PartOf, Positive, Section, Share, refusal
from tasks.params.rounds import AnyRound, Criterion, Loss, Search, Trials, check_round, trials_of

# the sections that a check between sections reads -> its faults, a sentence each
Checks = list[tuple[tuple[str, ...], Callable[[], Iterable[str]]]]


class Splits(Section):
    """Shares of the labelled rows, or documents, kept for validation and test; the rest is the training set."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)]
    test: Annotated[float, Field(gt=0.0, lt=0.5)]


class AnyTraining(Section):
    """How a model is trained; the budget stands with the model or the round."""

    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    checkpoints: Positive


def _weight(value: object) -> object:
    if value == "dynamic" or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return value
    raise ValueError(f"got {value!r}; dynamic (the ratio of the two losses, at each step) or a number above 0 is allowed")


class ExtraLoss(Section):
    """A loss beside that of `distill`, for a share of the steps."""

    weight: Annotated[float | Literal["dynamic"], PlainValidator(_weight)]
    until_share: PartOf


class AnyDistill(AnyTraining):
    """How the student learns from the teacher; the names of losses are those of `tasks.training.losses.LOSSES`."""

    loss: Loss
    temperature: Annotated[float, Field(gt=0.0)]
    kd_weight: Share
    accumulate: Positive  # parts in which a batch is computed: less memory, the same gradient

    @model_validator(mode="after")
    def _parts_weigh_as_the_whole(self) -> Self:
        for name, extra in self:
            if isinstance(extra, ExtraLoss) and extra.weight == "dynamic" and self.accumulate > 1:
                raise ValueError(
                    f"{name}.weight: dynamic would be another ratio in each of the {self.accumulate} parts of a batch; "
                    "give a number, or set accumulate: 1"
                )
        return self


class Prune(Section):
    """How the structures to keep are chosen; the names are those of `tasks.pruning.criteria.CRITERIA`."""

    criterion: Criterion
    depth: Literal["harm", "block_influence"]
    merge_heads: bool


class AnyEvaluate(Section):
    """What is measured, on how many repeats."""

    bootstrap_resamples: Positive
    confidence: Confidence
    latency_batches: list[int]
    latency_tokens: Positive
    latency_repeats: Positive


class Baselines(Section):
    """Honest rivals; `random_init` lists the rounds whose shape is also trained from random weights."""

    random_init: list[str]


class Report(Section):
    """What the report shows: so many texts on which a round and its teacher disagree most surely."""

    examples: Count


class Registry(Section):
    """Name of the registered model in MLflow."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


EXTERNAL: Final = "external"


def _processes(value: object) -> object:
    if value == EXTERNAL or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(
        f"got {value!r}; a number from 1 on (so many processes of this machine), or external (those that torchrun, srun or "
        "another launcher started) is allowed"
    )


class Launcher(Section):
    """Several processes that train one model together: of this machine (`tasks.running.launch`), or as many as somebody else
    has started, `external` (`tasks.running.join`).
    """

    processes: Annotated[int | Literal["external"], PlainValidator(_processes)]
    backend: Literal["auto", "gloo", "nccl"]
    strategy: Literal["ddp", "fsdp"]

    @property
    def external(self) -> bool:
        """Whether somebody else starts the processes."""
        return self.processes == EXTERNAL

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.processes == EXTERNAL or self.processes > 1


# Stages that compute for long: another machine is worth the seconds of the way to it.
POOLED: Final = ("teacher", "teacher_logits", "trial", "finish", "distill", "random_init", "evaluate_teacher", "evaluate")
PoolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Runtime(Section):
    """Where and how the work runs; never part of what a stage depends on."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Positive | None
    launcher: Launcher | None
    compile: Literal["auto"] | bool
    pools: Mapping[str, PoolName] | None = None

    def pool_of(self, stage: str) -> str | None:
        """Return the work pool of Prefect that a stage such as `distill@r1` is for; None where it runs in the run's own place."""
        asked = self.pools or {}
        return asked.get(stage) or asked.get(stage.partition("@")[0])

    @field_validator("pools")
    @classmethod
    def _are_heavy(cls, value: Mapping[str, str] | None) -> Mapping[str, str] | None:
        strange = sorted(name for name in value or {} if name.partition("@")[0] not in POOLED)
        if strange:
            raise ValueError(f"{', '.join(strange)}: allowed are {', '.join(POOLED)}, or one of them as distill@r1")
        return value

    @field_validator("launcher", mode="before")
    @classmethod
    def _is_whole(cls, value: object) -> object:
        if value == EXTERNAL:
            raise ValueError("got 'external'; write {processes: external, backend: auto, strategy: ddp}")
        return value

    @property
    def sharded(self) -> bool:
        """Whether each process holds a share of the weights alone."""
        return self.launcher is not None and self.launcher.several and self.launcher.strategy == "fsdp"

    @model_validator(mode="after")
    def _compiles_whole_models(self) -> Self:
        if self.compile is True and self.sharded:
            raise ValueError("runtime.compile: true is for whole models; set runtime.launcher.strategy: ddp")
        return self


class Params(Section):
    """What the params of every task have; a class for each task adds the rest."""

    task: str
    seed: Count
    prune: Prune
    rounds: Mapping[Name, AnyRound]
    trials: Trials
    evaluate: AnyEvaluate
    baselines: Baselines
    gates: list[Gate]
    promotion: Promotion
    report: Report
    registry: Registry
    runtime: Runtime

    @abstractmethod
    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""

    @property
    @abstractmethod
    def drift(self) -> Drift | None:
        """How far new data may be from that of the last result in Git; None where it is not compared."""

    @abstractmethod
    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""

    def unlabelled_sets(self) -> list[str]:
        """Return the names of the sets on which students are compared with their teacher without labels."""
        return []

    @abstractmethod
    def needing_whole_weights(self) -> Iterable[str]:
        """Return the keys of what processes that hold shares of the weights cannot do."""

    def searches(self) -> Mapping[str, Search]:
        """Return round -> its search; ValueError where DVC could not make stages of all of them. No round searches here."""
        return {}

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if faults := self.faults():
            raise ValueError("\n".join(faults))
        return self

    def faults(self, unread: Collection[str] = ()) -> list[str]:
        """Return all that is wrong between sections, one sentence each; checks of the sections `unread` are left out."""
        checks = [check for needed, check in self.checks() if not set(needed) & set(unread)]
        return [fault for check in checks for fault in check()]

    def checks(self) -> Checks:
        """Return the checks between sections, each with the sections that it reads; a task adds its own."""
        return [
            (("gates", "promotion", "data"), self._gate_faults),
            (("runtime", "distill", "rounds"), self._share_faults),
            (("rounds", "baselines"), self._round_faults),
            (("rounds", "trials"), self._trial_faults),
        ]

    def _gate_faults(self) -> Iterable[str]:
        return gate_faults(self.task, (self.gates, self.promotion.gates), self.measured_sets(), self.unlabelled_sets())

    def _share_faults(self) -> Iterator[str]:
        for key in self.needing_whole_weights() if self.runtime.sharded else ():
            yield f"{key} needs whole weights; set runtime.launcher.strategy: ddp"

    def _round_faults(self) -> Iterator[str]:
        if not self.rounds:
            yield "rounds: at least one round is needed"
        earlier: dict[str, dict[str, int]] = {}
        for name, target in self.rounds.items():
            try:
                check_round(name, target, earlier)
            except ValueError as error:
                yield str(error)
            # masks say nothing of the shape: it is the parent's
            earlier[name] = target.axes if target.axes or target.budgets else earlier.get(target.parent, {})
        for name in self.baselines.random_init:
            if name not in self.rounds:
                yield f"baselines.random_init: {name!r} is not a round; allowed: {', '.join(self.rounds)}"

    def _trial_faults(self) -> Iterator[str]:
        try:
            wanted = trials_of({name: search.model_dump() for name, search in self.searches().items()})
        except ValueError as error:
            yield str(error)
            return
        if self.trials.model_dump() != wanted:
            reason = "DVC makes a stage of every candidate that a round with search tries"
            section = ", ".join(f"{key}: [{', '.join(map(str, values))}]" for key, values in wanted.items())
            yield f"trials: {refusal(self.task, 'search') or reason}; write trials: {{{section}}}"
