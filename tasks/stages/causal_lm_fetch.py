"""Copies the documents and the teacher of a language model into the workspace, checked against sources.lock.

deps: sources.lock | params: data, teacher | outs: fetched/data, fetched/teacher
A packed model (GGUF) is de-quantised here, so that every later stage reads a plain folder; a new one is a config alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasks.data.sources import MAIN, check_lock, decoder_files, locate, text_files
from tasks.files import write_json
from tasks.models.architectures import adapter_of
from tasks.models.causal_lm import new_config
from tasks.models.checkpoint import read_config, unpack_gguf
from tasks.params.causal_lm import CausalLMParams
from tasks.running.preflight import check_causal_shapes, check_tokenizer
from tasks.running.stage import InPath, OutPath


def run(params: CausalLMParams, *, lock: InPath, data: OutPath, teacher: OutPath) -> dict[str, Any]:
    """Return how many bytes were copied."""
    check_lock(params.sources(), lock)
    copied = _copy(text_files(locate(params.data.source, "data.source"), "data.source"), data / MAIN)
    for name, one in params.data.evaluation_sets.items():
        key = f"data.evaluation_sets.{name}.source"
        copied += _copy(text_files(locate(one.source, key), key), data / name)
    if params.teacher.new is not None:
        write_json(teacher / "config.json", new_config(params.teacher.new.model_dump(), params.data.block_tokens))
    else:
        files = decoder_files(locate(params.teacher.model, "teacher.model"))
        if files[0].suffix == ".gguf":
            unpack_gguf(files[0], teacher)
            copied += files[0].stat().st_size
        else:
            copied += _copy({path.name: path for path in files}, teacher)
    config = read_config(teacher)
    shapes = check_causal_shapes(params, config)
    if params.teacher.new is None:  # the tokenizer of a new one is ours
        check_tokenizer(teacher, adapter_of(config).shape(config), shapes)
    return {"copied_bytes": copied}


def _copy(files: dict[str, Path], out: Path) -> int:
    for name, path in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
    return sum(path.stat().st_size for path in files.values())
