"""Whether the rounds can be cut from the teacher, and the disk has room: asked before anything is written, and by `teacher`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.data.pairs import sets_mark
from tasks.data.vocabulary import check_prior, check_prunable
from tasks.errors import Faults, ParamsError, ResourceError, SourceError
from tasks.files import read_json
from tasks.models.architectures import FAMILIES, adapter_of, relation_widths
from tasks.models.causal_lm import DECODERS, new_config
from tasks.models.shapes import Shape
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.rounds import AnyRound, check_shrinks
from tasks.pruning.planning import Measure, causal_shape, possible_shapes

Config = Mapping[str, Any]
Shapes = dict[str, dict[str, int]]  # round -> its shape

# A run keeps, per model: checkpoints, the model, its ONNX files, and DVC's and MLflow's copies of them.
COPIES_OF_A_MODEL = 12
MARGIN_BYTES = 200_000_000


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder; SourceError if it is not a JSON object."""
    try:
        config = read_json(folder / "config.json")
    except ValueError as error:
        raise SourceError(f"{folder / 'config.json'}: not readable as JSON: {error}") from None
    if not isinstance(config, dict):
        raise SourceError(f"{folder / 'config.json'}: a JSON object is needed")
    return config


def check_shapes(params: ClassificationParams, config: Config) -> Shapes:
    """Return the shape of every round; ParamsError unless each fits the teacher's architecture and shrinks.

    Of a round with `search` it is the first candidate; the rounds that start from it must fit whichever is taken.
    """
    measure = Measure(config, len(params.data.labels), params.evaluate.latency_tokens)
    configs = _check_rounds(params.rounds, config, partial(possible_shapes, measure=measure))
    for name, models in {"the teacher": [config], **configs}.items():
        for model in models:
            check_relations(params, name, model)
    return _first_shapes(configs)


def check_causal_shapes(params: CausalLMParams, config: Config) -> Shapes:
    """Return the shape of every round; a UserError unless each fits the teacher's architecture and shrinks."""
    if config.get("model_type") not in DECODERS:
        raise SourceError(
            f"teacher.model: config.json: model_type {config.get('model_type')!r} is no language model that is supported; "
            f"allowed for task: causal_lm: {', '.join(DECODERS)}"
        )
    shape_of = partial(causal_shape, teacher=config, tokens=params.evaluate.latency_tokens)
    return _first_shapes(_check_rounds(params.rounds, config, lambda *asked: [shape_of(*asked)]))


SHAPES: Final[Mapping[str, Callable[[Any, Config], Shapes]]] = {CLASSIFICATION: check_shapes, CAUSAL_LM: check_causal_shapes}


def check_new(params: CausalLMParams) -> None:
    """Raise a UserError unless every round can be cut from the new teacher of `params`."""
    if params.teacher.new is not None:
        check_causal_shapes(params, new_config(params.teacher.new.model_dump(), params.data.block_tokens))


def check_fit(params: Params, folder: Path) -> None:
    """Raise a UserError unless every round can be cut from the teacher in `folder`, its tokenizer included."""
    config = read_model_config(folder)
    if isinstance(params, ClassificationParams) and params.data.columns.text_pair is not None:
        check_pairs(folder, config)
    shapes = SHAPES[params.task](params, config)
    if (folder / "tokenizer.json").exists():  # that of a new language model is made to measure
        check_tokenizer(folder, adapter_of(config).shape(config), shapes)
        smaller = any(shape["vocabulary"] != adapter_of(config).shape(config)["vocabulary"] for shape in shapes.values())
        if smaller and isinstance(params, ClassificationParams) and params.prune.vocabulary_prior is not None:
            check_prior(read_json(folder / "tokenizer.json"))


def _check_rounds(
    rounds: Mapping[str, AnyRound], config: Config, possible: Callable[..., list[dict[str, int]]]
) -> dict[str, list[Config]]:
    """Return the configs that each round may have, of every `possible` shape from every config of its parent."""
    configs: dict[str, list[Config]] = {"teacher": [config]}
    faults = Faults()
    for name, target in rounds.items():
        where = f"params.yaml: rounds.{name}"
        with faults.gathered():
            configs[name] = [
                _resized(where, target, shape, parent)
                for parent in configs.get(target.parent, ())  # none of a parent with a fault of its own
                for shape in possible(where, target, parent)
            ]
    faults.refuse()
    return {name: configs[name] for name in rounds}


def _first_shapes(configs: Mapping[str, list[Config]]) -> Shapes:
    return {name: adapter_of(models[0]).shape(models[0]) for name, models in configs.items()}


def _resized(where: str, target: AnyRound, shape: Shape, parent: Config) -> Config:
    """Return the parent's config with the sizes of a round; ParamsError unless it can be and, but for masks, shrinks."""
    family = adapter_of(parent)
    if reason := family.refusal(parent, shape):
        raise ParamsError(f"{where}: {reason}")
    if target.axes or target.budgets:
        try:
            check_shrinks(where, shape, family.shape(parent))
        except ValueError as error:
            raise ParamsError(str(error)) from None
    return family.resized(parent, shape)


def check_tokenizer(folder: Path, before: Shape, shapes: Mapping[str, Shape]) -> None:
    """Raise ParamsError where a round has fewer tokens than the teacher and its tokenizer cannot be cut to them."""
    for name, shape in shapes.items():
        if shape["vocabulary"] != before["vocabulary"]:
            try:
                check_prunable(read_json(folder / "tokenizer.json"), shape["vocabulary"])
            except ParamsError as error:
                raise ParamsError(f"params.yaml: rounds.{name}.vocabulary: {folder}: {error}") from None


def check_pairs(folder: Path, config: Config) -> None:
    """Raise ParamsError unless the teacher in `folder` reads pairs: an encoder whose tokenizer sets a mark between two texts."""
    encoders = ", ".join(name for name, family in FAMILIES.items() if family.READS == "first")
    if adapter_of(config).READS != "first":
        raise ParamsError(
            f"params.yaml: data.columns.text_pair: {folder} is a {config['model_type']}, which answers at the last token, and "
            f"pairs are for models that read both texts at once; allowed: teachers of the families {encoders}, or text_pair: null"
        )
    file = folder / "tokenizer.json"
    if file.exists() and not sets_mark(read_json(file).get("post_processor")):
        raise ParamsError(
            f"params.yaml: data.columns.text_pair: {file}: post_processor sets no mark between the two texts of a pair, so "
            "nothing tells where the second begins; give the tokenizer that the teacher was made with, or write text_pair: null"
        )


def check_relations(params: ClassificationParams, who: str, config: Mapping[str, Any]) -> None:
    """Raise ParamsError unless distill.relations cuts the queries, keys and values of a model into equal parts."""
    wanted = params.distill.relations
    if wanted is None:
        return
    for width in sorted(relation_widths(config)):
        if width % wanted.heads:
            raise ParamsError(
                f"params.yaml: distill.relations.heads: {wanted.heads} relation heads do not divide the {width} channels of "
                f"the attention of {who}; every teacher and student must have a multiple of them"
            )


def check_disk(weights_bytes: int, workspace: Path) -> None:
    """Raise ResourceError when the workspace's disk has clearly too little room for a run."""
    needed = COPIES_OF_A_MODEL * weights_bytes + MARGIN_BYTES
    free = shutil.disk_usage(workspace).free
    if free < needed:
        raise ResourceError(
            f"{workspace}: a run needs about {needed / 1e9:.1f} GB of disk space and {free / 1e9:.1f} GB are free; "
            "free some, or move the workspace"
        )
