"""The typed schema of params.yaml: the one description of a run.

Every stage validates the whole file before any work, so a typo costs seconds. The schema has no defaults: the file
shows every value a run uses. Sections are named after the stages that read them.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import ParamsError
from tasks.evaluation.rules import BOUNDS, COUNTS, METRICS, ONLY_CAUSAL_LM, PAIRED
from tasks.pruning.shapes import AXES

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Source = Annotated[str, Field(pattern=r"^(pkg|path|hub):.+$")]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    calibration_rows: Positive
    max_tokens: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _labels_are_dense(self) -> Self:
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels must number the classes 0, 1, ...; got {sorted(self.labels)}")
        if set(self.evaluation_sets) & {"train", "validation", "test", "transfer", "calibration"}:
            raise ValueError("evaluation_sets may not be named train, validation, test, transfer or calibration")
        return self


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

    criterion: Literal["activation", "magnitude_l1", "magnitude_l2", "random", "taylor", "wanda"]


class Distill(Section):
    """How the student learns from the teacher; the budgets of a round stand in `rounds`.

    The names of losses are those of `tasks.distillation.losses.LOSSES`.
    """

    loss: Literal["forward_kl", "jensen_shannon", "reverse_kl"]
    temperature: Annotated[float, Field(gt=0.0)]
    kd_weight: Share
    batch_rows: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    checkpoints: Positive


class RoundShape(Section):
    """The shape that a round reaches from `parent`."""

    parent: str
    vocabulary: Positive
    hidden: Positive
    heads: Positive
    ffn: Positive
    layers: Positive

    def axis(self, name: str) -> int:
        """Return the target of one axis of `tasks.pruning.shapes.AXES`."""
        return int(getattr(self, name))


class Round(RoundShape):
    """One round: the shape to reach from `parent`, and the distillation budget to recover with."""

    labelled_epochs: Annotated[int, Field(ge=0)]
    transfer_epochs: Annotated[float, Field(ge=0.0)]
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]


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


class Gate(Section):
    """One rule a round must keep; exactly one bound. The only section whose keys may be left out."""

    metric: str
    set: str | None = None
    slice: str | None = None
    slices: str | None = None
    versus: Literal["teacher", "tfidf_logistic", "champion"] | None = None
    min: Finite | None = None
    max: Finite | None = None
    min_ratio: Finite | None = None
    max_ratio: Finite | None = None
    min_gain: Finite | None = None
    max_drop: Finite | None = None
    test: Literal["paired_bootstrap", "mcnemar"] | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] | None = None
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
        given = [bound for bound in BOUNDS if getattr(self, bound) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(BOUNDS)} is needed; got {', '.join(given) or 'none'}")
        if self.metric not in METRICS:
            near = difflib.get_close_matches(self.metric, METRICS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"metric {self.metric!r} is not one of {', '.join(sorted(METRICS))}{hint}")
        if self.metric == "churn" and (given[0] != "max" or self.versus is None):
            raise ValueError("churn counts rows that change against another model: it needs `versus` and `max`")
        if self.metric != "churn" and (given[0] in ("min", "max")) == (self.versus is not None):
            raise ValueError(f"{given[0]} {'takes no' if self.versus else 'needs'} `versus`")
        if METRICS[self.metric] != (self.set is not None):
            raise ValueError(f"metric {self.metric} {'needs' if METRICS[self.metric] else 'takes no'} `set`")
        return self

    @model_validator(mode="after")
    def _has_no_idle_key(self) -> Self:
        if self.set is None and (self.slice or self.slices or self.min_support):
            raise ValueError(f"metric {self.metric} is not measured on rows: it takes no slice, slices or min_support")
        if self.slice is not None and self.slices is not None:
            raise ValueError("`slice` names one slice and `slices` is a pattern of several; give one of them")
        if (self.confidence is not None or self.slices is not None) and self.min_support is None:
            raise ValueError("`min_support` is needed with `confidence` or `slices`: fewer rows than it prove nothing")
        if (self.test is not None) != (self.confidence is not None and self.metric != "churn"):
            raise ValueError("`test` and `confidence` need each other (churn has an exact bound and takes no `test`)")
        if self.test is not None and (self.metric != "accuracy" or self.bound not in ("max_drop", "min_gain")):
            raise ValueError("`test` compares accuracies: it needs metric accuracy and max_drop or min_gain")
        if self.test is not None and not 0.0 <= getattr(self, self.bound) < 1.0:
            raise ValueError(f"{self.bound} is a share of rows here: at least 0 and below 1 (0.02 is 2 points)")
        if self.confidence is not None and self.metric not in PAIRED:
            raise ValueError(f"`confidence` is for {' and '.join(PAIRED)}")
        if self.prove is not None and self.test is None:
            raise ValueError("`prove` says what a `test` has to show; without `test` it changes nothing")
        if self.resamples is not None and self.test != "paired_bootstrap":
            raise ValueError("`resamples` belongs to test: paired_bootstrap")
        return self


class Promotion(Section):
    """What is asked once more when a model is to become champion; here a rule may be `versus: champion`."""

    gates: list[Gate]


class Registry(Section):
    """Name of the registered model in MLflow."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Runtime(Section):
    """Where and how the work runs; never part of what a stage depends on."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Positive | None


class AnyParams(Section):
    """What the params of every task have; a class for each task adds the rest."""

    seed: Annotated[int, Field(ge=0)]
    prune: Prune
    rounds: Mapping[Name, RoundShape]
    baselines: Baselines
    gates: list[Gate]
    promotion: Promotion
    registry: Registry
    runtime: Runtime

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        raise NotImplementedError


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
    def _metrics_are_of_classifiers(self) -> Self:
        for gate in [*self.gates, *self.promotion.gates]:
            if gate.metric in ONLY_CAUSAL_LM:
                raise ValueError(f"gates: metric {gate.metric} is measured of language models, task: causal_lm")
        return self

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> Self:
        sets = ["validation", "test", *self.data.evaluation_sets]
        for where, gates in (("gates", self.gates), ("promotion.gates", self.promotion.gates)):
            for place, gate in enumerate(gates):
                if gate.set is not None and gate.set not in sets:
                    near = difflib.get_close_matches(gate.set, sets, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ValueError(f"{where}.{place}.set: {gate.set!r} is not one of {', '.join(sets)}{hint}")
        if any(gate.versus == "champion" for gate in self.gates):
            raise ValueError(
                "gates: who is champion is known to the registry only; ask `versus: champion` in promotion.gates"
            )
        if any(gate.versus == "tfidf_logistic" for gate in self.promotion.gates):
            raise ValueError("promotion.gates: versus tfidf_logistic is asked in gates; here it is teacher or champion")
        if any(not METRICS[gate.metric] and gate.metric not in COUNTS for gate in self.promotion.gates):
            raise ValueError(
                f"promotion.gates: differences of exports are asked in gates; here {', '.join(sorted(COUNTS))}"
            )
        return self

    @model_validator(mode="after")
    def _rounds_shrink(self) -> Self:
        if not self.rounds:
            raise ValueError("rounds: at least one round is needed")
        seen: dict[str, Round] = {}
        for name, target in self.rounds.items():
            check_round(name, target, seen)
            _check_budget(f"rounds.{name}", target, self.data.transfer.rows + self.data.transfer.spliced_rows)
            seen[name] = target
        for name in self.baselines.random_init:
            if name not in self.rounds:
                raise ValueError(f"baselines.random_init: {name!r} is not a round; allowed: {', '.join(self.rounds)}")
        return self


def check_round(name: str, target: RoundShape, earlier: Mapping[str, RoundShape]) -> None:
    """Raise ValueError unless a round starts from an earlier one, or the teacher, and is smaller than it."""
    where = f"rounds.{name}"
    if name in ("teacher", "r0"):
        raise ValueError(f"{where}: the names teacher and r0 belong to the teacher; choose another")
    if target.hidden % target.heads:
        raise ValueError(
            f"{where}.heads: {target.heads} does not divide {where}.hidden = {target.hidden}; "
            "every head needs the same whole number of channels"
        )
    if target.parent == "teacher":
        return
    if target.parent not in earlier:
        allowed = ", ".join(["teacher", *earlier])
        raise ValueError(f"{where}.parent: {target.parent!r} is not an earlier round; allowed: {allowed}")
    check_shrinks(where, {a: target.axis(a) for a in AXES}, {a: earlier[target.parent].axis(a) for a in AXES})


def _check_budget(where: str, target: Round, transfer_rows: int) -> None:
    if target.labelled_epochs == 0 and target.transfer_epochs * transfer_rows < 1:
        raise ValueError(
            f"{where}: labelled_epochs = 0 and transfer_epochs = {target.transfer_epochs} of {transfer_rows} transfer rows "
            "leave nothing to train on; make one of them larger"
        )


def check_shrinks(where: str, child: Mapping[str, int], parent: Mapping[str, int]) -> None:
    """Raise ValueError unless every axis of `child` is at most its parent's and one is smaller."""
    for axis in AXES:
        if child[axis] > parent[axis]:
            raise ValueError(
                f"{where}.{axis}: {child[axis]} is larger than its parent's {parent[axis]}; "
                f"allowed: 1 to {parent[axis]}"
            )
    if all(child[axis] == parent[axis] for axis in AXES):
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

    schemas: dict[object, type[AnyParams]] = {"classification": Params, "causal_lm": CausalParams}
    task = values.get("task") if isinstance(values, Mapping) else None
    if task not in schemas:
        said = "missing" if task is None else f"{task!r} is unknown"
        raise ParamsError(f"{file}: task: {said}; write task: {' or task: '.join(map(str, schemas))}")
    return schemas[task]


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
        if type(None) in get_args(annotation):  # a section that may be null
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
