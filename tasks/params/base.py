"""The typed schema of params.yaml: the one description of a run.

The schema has no defaults: the file shows every value a run uses. Sections are named after the stages that read them; the
longer ones are in `tasks.params.classification`, `tasks.params.classification`, `tasks.params.rounds` and `tasks.params.gates`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from tasks.params.gates import Gate, Promotion
from tasks.params.parts import Name, Positive, Section, Share
from tasks.params.rounds import AnyRound, Criterion, Trials

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
    """Several processes of this machine that train one model together: `tasks.running.launch`."""

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


class Params(Section):
    """What the params of every task have; a class for each task adds the rest."""

    task: str
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
