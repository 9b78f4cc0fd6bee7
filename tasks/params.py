"""The typed schema of params.yaml: the one description of a run.

Every stage validates the whole file before any work, so a typo costs seconds. The schema has no defaults: the file
shows every value a run uses. Sections are named after the stages that read them.
"""

from __future__ import annotations

import difflib
import io
import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args, get_origin

from pydantic import (
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import ParamsError
from tasks.evaluation.rules import ONLY_CAUSAL_LM
from tasks.params_gates import Gate, Promotion, check_gates
from tasks.params_parts import Name, Positive, Section, Share, Source, did_you_mean
from tasks.pruning.shapes import AXES

Criterion = Literal["activation", "magnitude_l1", "magnitude_l2", "random", "taylor", "wanda"]
CLASSIFICATION: Final = "classification"
CAUSAL_LM: Final = "causal_lm"
BUDGETS = ("params_total", "ratio", "flops_per_example", "speedup")


class Columns(Section):
    """Which column of the data file holds what; `split` may be null, then rows are split by content hash."""

    text: str
    label: str
    source: str | None
    split: str | None


class Splits(Section):
    """Shares of the labelled rows kept for validation and test; the rest is the training set."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)]
    test: Annotated[float, Field(gt=0.0, lt=0.5)]


class Transfer(Section):
    """Unlabelled text on which the student imitates the teacher: sentences of `sources`, and spliced training rows."""

    sources: list[str]
    min_words: Positive
    max_words: Positive
    rows: Annotated[int, Field(ge=0)]
    spliced_rows: Annotated[int, Field(ge=0)]


class EvaluationSet(Section):
    """A further labelled evaluation set, held out by source."""

    sources: list[str]
    rows: Positive


class Typos(Section):
    """A copy of an evaluation set with slips of the keyboard in a share of the words: the set `<of>_typos`."""

    of: Name
    word_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Data(Section):
    """Where the text comes from and how it is cut into sets."""

    source: Source
    columns: Columns
    labels: dict[int, str]
    task_sources: list[str] | None
    splits: Splits
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1.0)]
    transfer: Transfer
    evaluation_sets: dict[Name, EvaluationSet]
    typos: Typos | None
    calibration_rows: Positive
    max_tokens: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _labels_are_dense(self) -> Self:
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels must number the classes 0, 1, ...; got {sorted(self.labels)}")
        if set(self.evaluation_sets) & {"train", "validation", "test", "transfer", "calibration"}:
            raise ValueError("evaluation_sets may not be named train, validation, test, transfer or calibration")
        return self

    @model_validator(mode="after")
    def _typos_are_of_a_set(self) -> Self:
        sets = ["validation", "test", *self.evaluation_sets]
        if self.typos is not None and self.typos.of not in sets:
            raise ValueError(
                f"typos.of: {self.typos.of!r} is not one of {', '.join(sets)}{did_you_mean(self.typos.of, sets)}"
            )
        if self.typos is not None and f"{self.typos.of}_typos" in sets:
            raise ValueError(f"evaluation_sets: {self.typos.of}_typos is the name of the set that `typos` makes")
        return self

    @property
    def further_sets(self) -> list[str]:
        """Return the names of the evaluation sets besides validation and test."""
        return [*self.evaluation_sets, *([f"{self.typos.of}_typos"] if self.typos else [])]

    @property
    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return ["validation", "test", *self.further_sets]


class ValidateData(Section):
    """Limits the data must keep to; beyond them the run stops before any training."""

    min_rows_per_class: Positive
    max_class_share: Annotated[float, Field(gt=0.0, le=1.0)]
    max_duplicate_share: Share
    max_conflicting_share: Share
    max_characters: Positive


class Teacher(Section):
    """The model to compress; `epochs: 0` takes it as it is."""

    model: Source
    epochs: Annotated[int, Field(ge=0)]
    frozen_layers: Annotated[int, Field(ge=0)] | None
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    batch_rows: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    checkpoints: Positive


class Prune(Section):
    """How the structures to keep are chosen; the names are those of `tasks.pruning.criteria.CRITERIA`."""

    criterion: Criterion
    depth: Literal["harm", "block_influence"]
    merge_heads: bool


def _weight(value: object) -> object:
    if value == "dynamic" or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return value
    raise ValueError(
        f"got {value!r}; dynamic (the ratio of the two losses, at each step) or a number above 0 is allowed"
    )


Weight = Annotated[float | Literal["dynamic"], PlainValidator(_weight)]


def check_parts(name: str, weight: float | str, accumulate: int) -> None:
    """Raise ValueError where the dynamic weight of an extra loss would be a ratio of each part of a batch."""
    if weight == "dynamic" and accumulate > 1:
        raise ValueError(
            f"{name}.weight: dynamic would be another ratio in each of the {accumulate} parts of a batch; "
            "give a number, or set accumulate: 1"
        )


class Hidden(Section):
    """An extra loss on what the layers hold of a row: `tasks.distillation.hidden`."""

    loss: Literal["cosine", "mse"]
    weight: Weight
    layers: Literal["uniform", "last"]
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Relations(Section):
    """An extra loss on how the tokens of a row relate in the last layer: `tasks.distillation.relations`."""

    heads: Positive
    weight: Weight
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Distill(Section):
    """How the student learns from the teacher; the budgets of a round stand in `rounds`.

    The names of losses are those of `tasks.distillation.losses.LOSSES`.
    """

    loss: Literal["forward_kl", "jensen_shannon", "reverse_kl"]
    temperature: Annotated[float, Field(gt=0.0)]
    kd_weight: Share
    cache: None  # of language models; of a classifier all logits are cached. dvc.yaml names the key for both tasks
    hidden: Hidden | None
    relations: Relations | None
    batch_rows: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    accumulate: Positive
    average: Annotated[float, Field(gt=0.0, lt=1.0)] | None
    checkpoints: Positive

    @model_validator(mode="after")
    def _parts_weigh_as_the_whole(self) -> Self:
        for name, extra in (("hidden", self.hidden), ("relations", self.relations)):
            if extra is not None:
                check_parts(name, extra.weight, self.accumulate)
        return self


class Search(Section):
    """Several shapes within the budget of a round, tried by a short distillation each; the best `keep` are finished.

    The short distillation is of `transfer_rows` rows of the transfer set and of no labelled ones.
    """

    candidates: Annotated[int, Field(ge=2, le=16)]
    transfer_rows: Positive
    keep: Positive

    @model_validator(mode="after")
    def _something_is_ranked(self) -> Self:
        if self.keep >= self.candidates:
            raise ValueError(
                f"keep: {self.keep} of {self.candidates} candidates leaves nothing to rank; "
                f"allowed: 1 to {self.candidates - 1}"
            )
        return self


class MeasuredShape(Section):
    """The median latency of a shape and of the teacher, which took turns: one row, one thread, milliseconds."""

    vocabulary: Positive
    hidden: Positive
    heads: Positive
    ffn: Positive
    layers: Positive
    latency_ms: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    teacher_latency_ms: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

    @property
    def shape(self) -> dict[str, int]:
        """Return the size along each axis."""
        return {axis: int(getattr(self, axis)) for axis in AXES}

    @property
    def speedup(self) -> float:
        """Return how many times faster than the teacher the shape was."""
        return self.teacher_latency_ms / self.latency_ms


class Measured(Section):
    """What `compactlm measure` found for a round with `speedup`: an input of the run, so the same file gives the same shape."""

    tokens: Positive
    machine: str
    shapes: Annotated[list[MeasuredShape], Field(min_length=1)]


class AnyRound(Section):
    """What the rounds of every task have: axes at a size, or one budget of `budget_names` that the rest is solved for."""

    budget_names: ClassVar[tuple[str, ...]]

    parent: str
    vocabulary: Positive | None = None
    hidden: Positive | None = None
    heads: Positive | None = None
    ffn: Positive | None = None
    layers: Positive | None = None
    params_total: Positive | None = None
    ratio: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    @property
    def budgets(self) -> dict[str, float]:
        """The budget that is given, by its name; empty where the whole shape is."""
        return {name: getattr(self, name) for name in self.budget_names if getattr(self, name) is not None}

    @property
    def axes(self) -> dict[str, int]:
        """The axes whose size is given."""
        return {axis: int(getattr(self, axis)) for axis in AXES if getattr(self, axis) is not None}


class Round(AnyRound):
    """One round: what becomes of `parent`, and the distillation budget to recover with. Keys that do not apply are left out.

    Shapes: all five axes, or one of `params_total`, `ratio`, `flops_per_example` and `speedup` with any axes held at a size; the
    rest is solved by `tasks.pruning.planner`, or searched for with `search`. Masks keep the parent's shape:
    `granularity` with `sparsity` or `pattern`.
    """

    budget_names: ClassVar[tuple[str, ...]] = BUDGETS

    flops_per_example: Positive | None = None
    speedup: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] | None = None
    measured: Measured | None = None
    search: Search | None = None
    granularity: Literal["structured", "unstructured", "n_m"] = "structured"
    criterion: Criterion | None = None
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    pattern: Annotated[str, Field(pattern=r"^[1-9]\d?:[1-9]\d?$")] | None = None
    schedule: Literal["single", "linear", "cubic"] | None = None
    labelled_epochs: Annotated[int, Field(ge=0)]
    transfer_epochs: Annotated[float, Field(ge=0.0)]
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _is_one_kind_of_round(self) -> Self:
        if self.granularity != "structured":
            _check_masks(self)
            return self
        idle = [name for name in ("sparsity", "pattern", "schedule") if getattr(self, name) is not None]
        if idle:
            raise ValueError(f"{idle[0]}: belongs to granularity: unstructured or n_m")
        check_budgets(self.axes, self.budgets, BUDGETS)
        if self.search is not None and not self.budgets:
            raise ValueError(
                f"search: all axes are given, so there is one shape; drop some and give one of {', '.join(BUDGETS)}"
            )
        if self.search is not None and self.speedup is not None:
            raise ValueError(
                "search: few shapes are measured for speedup, so there are none to search among; "
                "drop it, or give params_total, ratio or flops_per_example"
            )
        if self.measured is not None and self.speedup is None:
            raise ValueError("measured: belongs to speedup")
        return self


def check_budgets(axes: Mapping[str, int], budgets: Mapping[str, float], allowed: Sequence[str]) -> None:
    """Raise ValueError unless a round gives all axes, or some and one budget."""
    missing = [axis for axis in AXES if axis not in axes]
    if len(budgets) > 1:
        raise ValueError(f"{' and '.join(budgets)}: one budget at a time")
    if missing and not budgets:
        raise ValueError(f"{', '.join(missing)}: missing; give every axis, or one of {', '.join(allowed)}")
    if budgets and not missing:
        raise ValueError(f"{next(iter(budgets))}: all axes are given, so nothing is left to solve; drop one of them")


def _check_masks(target: Round) -> None:
    """Raise ValueError unless a round of masks says what it needs and nothing else."""
    kind = target.granularity
    shaped = [*target.axes, *target.budgets]
    shaped += [name for name in ("search", "measured") if getattr(target, name) is not None]
    if shaped:
        raise ValueError(f"{shaped[0]}: granularity: {kind} keeps the parent's shape; drop it")
    needed, other = ("sparsity", "pattern") if kind == "unstructured" else ("pattern", "sparsity")
    if getattr(target, needed) is None or target.schedule is None or getattr(target, other) is not None:
        raise ValueError(f"granularity: {kind} needs {needed} and schedule, and takes no {other}")
    if target.criterion in (None, "activation"):
        raise ValueError(
            "criterion: masks rank single weights; give magnitude_l1, magnitude_l2, random, taylor or wanda"
        )
    if target.schedule != "single" and (kind == "n_m" or target.criterion not in ("magnitude_l1", "magnitude_l2")):
        raise ValueError(
            f"schedule: {target.schedule} masks more and more while the student trains, by magnitude and unstructured; "
            "here only single will do"
        )
    if target.pattern is not None:
        n, m = map(int, target.pattern.split(":"))
        if n >= m:
            raise ValueError(f"pattern: {target.pattern} keeps {n} of {m} weights: nothing goes; e.g. 2:4")


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


class Trials(Section):
    """The searches as DVC needs them, to make a stage of each candidate (`trial`) and of each kept one (`finish`)."""

    rounds: list[str]
    candidates: list[Positive]
    places: list[Positive]


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
    compile: bool

    @property
    def sharded(self) -> bool:
        """Whether each process holds a share of the weights alone."""
        return self.launcher is not None and self.launcher.processes > 1 and self.launcher.strategy == "fsdp"

    @model_validator(mode="after")
    def _compiles_whole_models(self) -> Self:
        if self.compile and self.sharded:
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
            _check_budget(f"rounds.{name}", target, self.data.transfer.rows + self.data.transfer.spliced_rows)
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


def check_round(name: str, target: AnyRound, earlier: Mapping[str, Mapping[str, int]]) -> None:
    """Raise ValueError unless a round starts from an earlier one and shrinks, as far as the given axes tell."""
    where = f"rounds.{name}"
    if name in ("teacher", "r0"):
        raise ValueError(f"{where}: the names teacher and r0 belong to the teacher; choose another")
    hidden, heads = target.axes.get("hidden"), target.axes.get("heads")
    if hidden is not None and heads is not None and hidden % heads:
        raise ValueError(
            f"{where}.heads: {heads} does not divide {where}.hidden = {hidden}; "
            "every head needs the same whole number of channels"
        )
    if target.parent == "teacher":
        return
    if target.parent not in earlier:
        allowed = ", ".join(["teacher", *earlier])
        raise ValueError(f"{where}.parent: {target.parent!r} is not an earlier round; allowed: {allowed}")
    check_shrinks(where, target.axes, earlier[target.parent])


def _check_budget(where: str, target: Round, transfer_rows: int) -> None:
    if target.labelled_epochs == 0 and target.transfer_epochs * transfer_rows < 1:
        raise ValueError(
            f"{where}: labelled_epochs = 0 and transfer_epochs = {target.transfer_epochs} of {transfer_rows} transfer rows "
            "leave nothing to train on; make one of them larger"
        )
    if target.search is not None and target.search.transfer_rows > transfer_rows:
        raise ValueError(
            f"{where}.search.transfer_rows: {target.search.transfer_rows} is more than the transfer set can have; "
            f"allowed: 1 to {transfer_rows}"
        )


def check_shrinks(where: str, child: Mapping[str, int], parent: Mapping[str, int]) -> None:
    """Raise ValueError unless every axis known of both is at most the parent's, and one is smaller if all are known."""
    known = [axis for axis in AXES if axis in child and axis in parent]
    for axis in known:
        if child[axis] > parent[axis]:
            raise ValueError(
                f"{where}.{axis}: {child[axis]} is larger than its parent's {parent[axis]}; "
                f"allowed: 1 to {parent[axis]}"
            )
    if len(known) == len(AXES) and all(child[axis] == parent[axis] for axis in AXES):
        raise ValueError(f"{where}: the same shape as its parent; make at least one of {', '.join(AXES)} smaller")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as plain Python values; raise ParamsError if it cannot be read."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: there is no such file; give another with --params") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None


def load_params(path: Path) -> AnyParams:
    """Return the validated params of a file; raise ParamsError naming file, key, value and what is allowed."""
    return check_params(read_yaml(path), path.name)


def check_params(values: object, file: str) -> AnyParams:
    """Return `values` as the params of their task; raise ParamsError with a line a fault, each starting with the file."""
    schema = schema_of(values, file)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [f"{file}: {_explain(detail, schema)}" for detail in error.errors()]
        raise ParamsError("\n".join(lines)) from None


def schema_of(values: object, file: str) -> type[AnyParams]:
    """Return the schema of the task that `values` name; ParamsError when they name none."""
    from tasks.params_causal import CausalParams  # which is built from the sections above

    schemas: dict[object, type[AnyParams]] = {CLASSIFICATION: Params, CAUSAL_LM: CausalParams}
    task = values.get("task") if isinstance(values, Mapping) else None
    if task not in schemas:
        said = "missing" if task is None else f"{task!r} is unknown"
        raise ParamsError(f"{file}: task: {said}; write task: {' or task: '.join(map(str, schemas))}")
    return schemas[task]


def recorded_params(values: object) -> AnyParams:
    """Return params from a record as plain JSON values; ValidationError when they are not of this version of the program.

    A record without `task` is of a classifier: versions before the key knew nothing else. One without `runtime.launcher`
    is of one process, one without its `strategy` is of DDP, and one without `runtime.compile` was not compiled. A
    language model without `accumulate` was trained on whole batches, and a record without `distill.cache` has none. One
    without `prune.depth` chose layers by the harm of doing without them, and one without `prune.merge_heads` merged none.
    One without `trials` trained the candidates of a search in one stage; it has those that its rounds tell of.
    """
    from tasks.params_causal import CausalParams

    if not isinstance(values, Mapping):
        return Params.model_validate(values)
    schema = CausalParams if values.get("task") == CAUSAL_LM else Params
    whole: dict[str, Any] = {"task": CLASSIFICATION, "trials": _recorded_trials(values.get("rounds")), **values}
    if isinstance(whole.get("runtime"), Mapping):
        runtime = {"launcher": None, "compile": False, **whole["runtime"]}
        if isinstance(runtime["launcher"], Mapping):
            runtime["launcher"] = {"strategy": "ddp", **runtime["launcher"]}
        whole["runtime"] = runtime
    if isinstance(whole.get("prune"), Mapping):
        whole["prune"] = {"depth": "harm", "merge_heads": False, **whole["prune"]}
    if isinstance(whole.get("distill"), Mapping):
        whole["distill"] = {"cache": None, **whole["distill"]}
    if schema is CausalParams:
        for name in ("teacher", "distill"):
            if isinstance(whole.get(name), Mapping):
                whole[name] = {"accumulate": 1, **whole[name]}
    return schema.model_validate_json(json.dumps(whole))


def trials_of(searches: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the section `trials` for the sections `search` by round, of which all have the same candidates and keep."""
    first = next(iter(searches.values()), {})
    candidates, keep = (value if isinstance(value, int) else 0 for value in map(first.get, ("candidates", "keep")))
    return {"rounds": [*searches], "candidates": [*range(1, candidates + 1)], "places": [*range(1, keep + 1)]}


def _recorded_trials(rounds: object) -> dict[str, list[Any]]:
    """Return `trials` as the rounds of a record without it would have them."""
    targets = rounds.items() if isinstance(rounds, Mapping) else ()
    found = {name: target.get("search") for name, target in targets if isinstance(target, Mapping)}
    return trials_of({name: one for name, one in found.items() if isinstance(one, Mapping)})


def _explain(detail: Any, schema: type[AnyParams]) -> str:
    """Return one fault of pydantic's as `key: what is wrong, what is allowed`."""
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(detail["loc"][:-1], schema)
        near = difflib.get_close_matches(str(detail["loc"][-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{key}: unknown key{hint} allowed here: {', '.join(allowed)}"
    if detail["type"] == "missing":
        return f"{key}: missing; every value must be given"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}" if key else str(detail["ctx"]["error"])
    if detail["type"] == "literal_error":
        expected = [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(str(detail["input"]), expected, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{key}: {detail['input']!r} is not one of {', '.join(expected)}{hint}"
    return f"{key}: got {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _fields_at(location: tuple[str | int, ...], schema: type[AnyParams]) -> list[str]:
    """Return the keys allowed at a place of the schema, following sections and dictionaries of sections."""
    model: Any = schema
    parts = iter(location)
    for part in parts:
        annotation = model.model_fields[part].annotation
        if NoneType in get_args(annotation):  # a section that may be null
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
            next(parts, None)  # the name of the entry, which is free
        model = annotation
    return sorted(model.model_fields)


def apply_overrides(text: str, overrides: list[str], file: str) -> str:
    """Return the YAML `text` with `dotted.key=value` overrides applied, comments kept; raise ParamsError if refused."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    document = yaml.load(text)
    for override in overrides:
        key, separator, raw = override.partition("=")
        if not separator:
            raise ParamsError(f"--set {override}: no '='; write --set rounds.r3.layers=2")
        place = document
        *parents, last = key.strip().split(".")
        for part in parents:
            if not isinstance(place, Mapping) or part not in place:
                allowed = ", ".join(map(str, place)) if isinstance(place, Mapping) else "nothing below it"
                raise ParamsError(f"--set {override}: {file} has no key {part!r} there; allowed: {allowed}")
            place = place[part]
        place[last] = YAML(typ="safe").load(raw)
    out = io.StringIO()
    yaml.dump(document, out)
    check_params(YAML(typ="safe").load(out.getvalue()), file)
    return out.getvalue()
