"""Checks that cost a second and save an hour: done before anything is written, by the command line and by `teacher`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tasks.data.sources import WEIGHTS, data_file, decoder_files, locate, model_files, text_files
from tasks.data.vocabulary import check_prunable
from tasks.errors import ParamsError, ResourceError, SourceError
from tasks.files import read_json
from tasks.models.architectures import adapter_of, relation_widths
from tasks.models.causal_lm import DECODERS, new_config
from tasks.params.base import Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.rounds import Round, check_shrinks
from tasks.pruning.planning import Measure, causal_shape, possible_shapes

# A run keeps, per model: checkpoints, the model, its ONNX files, and DVC's and MLflow's copies of them.
COPIES_OF_A_MODEL = 12
MARGIN_BYTES = 200_000_000
UNPACKED = 8  # bytes of fp32 for each of a .gguf file's, at four bits a weight


def check(params: Params, workspace: Path) -> None:
    """Raise a UserError when sources, shapes or free disk space would stop the run later."""
    if isinstance(params, CausalLMParams):
        return _check_causal(params, workspace)
    assert isinstance(params, ClassificationParams), "there are two tasks"
    sources = params.sources()
    folder = locate(sources["teacher.model"], "teacher.model")
    files = model_files(folder)
    data_file(locate(sources["data.source"], "data.source"))
    config = read_model_config(folder)
    shapes = check_shapes(params, config)
    check_tokenizer(folder, adapter_of(config).shape(config), shapes)
    weights_bytes = sum(p.stat().st_size for p in files if p.suffix == ".safetensors")
    check_disk(weights_bytes, workspace)


def _check_causal(params: CausalLMParams, workspace: Path) -> None:
    for key, source in params.sources().items():
        if key != "teacher.model":
            text_files(locate(source, key), key)
    if params.teacher.new is not None:
        check_causal_shapes(params, new_config(params.teacher.new.model_dump(), params.data.block_tokens))
        return check_disk(0, workspace)
    files = decoder_files(locate(params.teacher.model, "teacher.model"))
    weights_bytes = sum(path.stat().st_size for path in files if path.suffix in WEIGHTS)
    if files[0].suffix == ".gguf":
        if find_spec("gguf") is None:
            raise SourceError(
                "params.yaml: teacher.model: reading a .gguf file needs the package gguf; "
                "install it with the extra: pip install 'compactlm[decoder]'"
            )
        weights_bytes *= UNPACKED  # its shapes are checked by `fetch`: reading them here would take every run seconds
    else:
        folder, config = files[0].parent, read_model_config(files[0].parent)
        check_tokenizer(folder, adapter_of(config).shape(config), check_causal_shapes(params, config))
    check_disk(weights_bytes, workspace)


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder; SourceError if it is not a JSON object."""
    try:
        config = read_json(folder / "config.json")
    except ValueError as error:
        raise SourceError(f"{folder / 'config.json'}: not readable as JSON: {error}") from None
    if not isinstance(config, dict):
        raise SourceError(f"{folder / 'config.json'}: a JSON object is needed")
    return config


def check_shapes(params: ClassificationParams, config: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the shape of every round; ParamsError unless each fits the teacher's architecture and shrinks.

    Of a round with `search` it is the first candidate; the rounds that start from it must fit whichever is taken.
    """
    measure = Measure(config, len(params.data.labels), params.evaluate.latency_tokens)
    check_relations(params, "the teacher", config)
    configs: dict[str, list[Mapping[str, Any]]] = {"teacher": [config]}  # a search may end with any of its shapes
    shapes: dict[str, dict[str, int]] = {}
    for name, target in params.rounds.items():
        configs[name] = []
        for parent in configs[target.parent]:
            possible = possible_shapes(f"params.yaml: rounds.{name}", target, parent, measure)
            shapes.setdefault(name, possible[0])
            for shape in possible:
                _check_shape(f"params.yaml: rounds.{name}", target, shape, parent)
                configs[name].append(adapter_of(parent).resized(parent, shape))
                check_relations(params, name, configs[name][-1])
    return shapes


def _check_shape(where: str, target: Round, shape: Mapping[str, int], parent: Mapping[str, Any]) -> None:
    adapter = adapter_of(parent)
    refusal = adapter.refusal(parent, shape)
    if refusal is not None:
        raise ParamsError(f"{where}: {refusal}")
    if target.granularity == "structured":
        try:
            check_shrinks(where, shape, adapter.shape(parent))
        except ValueError as error:
            raise ParamsError(str(error)) from None


def check_tokenizer(folder: Path, before: Mapping[str, int], shapes: Mapping[str, Mapping[str, int]]) -> None:
    """Raise ParamsError where a round has fewer tokens than the teacher and its tokenizer cannot be cut to them."""
    for name, shape in shapes.items():
        if shape["vocabulary"] != before["vocabulary"]:
            try:
                check_prunable(read_json(folder / "tokenizer.json"), shape["vocabulary"])
            except ParamsError as error:
                raise ParamsError(f"params.yaml: rounds.{name}.vocabulary: {folder}: {error}") from None


def check_causal_shapes(params: CausalLMParams, config: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the shape of every round; a UserError unless each fits the teacher's architecture and shrinks."""
    if config.get("model_type") not in DECODERS:
        raise SourceError(
            f"teacher.model: config.json: model_type {config.get('model_type')!r} is no language model that is supported; "
            f"allowed for task: causal_lm: {', '.join(DECODERS)}"
        )
    configs: dict[str, Mapping[str, Any]] = {"teacher": config}
    shapes: dict[str, dict[str, int]] = {}
    for name, target in params.rounds.items():
        where, parent = f"params.yaml: rounds.{name}", configs[target.parent]
        adapter = adapter_of(parent)
        shapes[name] = causal_shape(where, target, parent, config, params.evaluate.latency_tokens)
        refusal = adapter.refusal(parent, shapes[name])
        if refusal is not None:
            raise ParamsError(f"{where}: {refusal}")
        try:
            check_shrinks(where, shapes[name], adapter.shape(parent))
        except ValueError as error:
            raise ParamsError(str(error)) from None
        configs[name] = adapter.resized(parent, shapes[name])
    return shapes


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
