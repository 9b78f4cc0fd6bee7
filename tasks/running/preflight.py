"""Checks that cost a second and save an hour: done before anything is written, by the command line and by `teacher`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tasks.data.sources import WEIGHTS, data_file, decoder_files, locate, model_files, text_files
from tasks.data.vocabulary import check_prunable
from tasks.errors import ParamsError, ResourceError, SourceError
from tasks.files import read_json
from tasks.models.architectures import adapter_of, relation_widths
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
UNPACKED = 8  # bytes of fp32 for each of a .gguf file's, at four bits a weight


def check(params: Params, workspace: Path) -> None:
    """Raise a UserError when sources, shapes or free disk space would stop the run later."""
    check_disk(CHECKS[params.task](params), workspace)


def _check_classifier(params: ClassificationParams) -> int:
    """Return the bytes of the teacher's weights; a UserError when its files, its data or the rounds are of no use."""
    sources = params.sources()
    folder = locate(sources["teacher.model"], "teacher.model")
    files = model_files(folder)
    data_file(locate(sources["data.source"], "data.source"))
    config = read_model_config(folder)
    check_tokenizer(folder, adapter_of(config).shape(config), check_shapes(params, config))
    return sum(path.stat().st_size for path in files if path.suffix == ".safetensors")


def _check_causal_lm(params: CausalLMParams) -> int:
    """Return what `_check_classifier` does; of a new teacher no bytes, and of a packed one those it is unpacked to."""
    for key, source in params.sources().items():
        if key != "teacher.model":
            text_files(locate(source, key), key)
    if params.teacher.new is not None:
        check_causal_shapes(params, new_config(params.teacher.new.model_dump(), params.data.block_tokens))
        return 0
    files = decoder_files(locate(params.teacher.model, "teacher.model"))
    weights_bytes = sum(path.stat().st_size for path in files if path.suffix in WEIGHTS)
    if files[0].suffix == ".gguf":
        if find_spec("gguf") is None:
            raise SourceError(
                "params.yaml: teacher.model: reading a .gguf file needs the package gguf; "
                "install it with the extra: pip install 'compactlm[decoder]'"
            )
        # its shapes are checked by `fetch`: reading them here would take every run seconds
        return UNPACKED * weights_bytes
    folder, config = files[0].parent, read_model_config(files[0].parent)
    check_tokenizer(folder, adapter_of(config).shape(config), check_causal_shapes(params, config))
    return weights_bytes


CHECKS: Final[Mapping[str, Callable[[Any], int]]] = {CLASSIFICATION: _check_classifier, CAUSAL_LM: _check_causal_lm}


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


def _check_rounds(
    rounds: Mapping[str, AnyRound], config: Config, possible: Callable[..., list[dict[str, int]]]
) -> dict[str, list[Config]]:
    """Return the configs that each round may have, of every `possible` shape from every config of its parent."""
    configs: dict[str, list[Config]] = {"teacher": [config]}
    for name, target in rounds.items():
        where = f"params.yaml: rounds.{name}"
        configs[name] = [
            _resized(where, target, shape, parent)
            for parent in configs[target.parent]
            for shape in possible(where, target, parent)
        ]
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
