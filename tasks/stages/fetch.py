"""Copies the teacher and the data from their sources into the workspace, checked against sources.lock.

A packed language model (GGUF) is de-quantised here, so that every later stage reads a plain folder; a new one is a config alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.data.gguf_header import check_gguf
from tasks.data.sources import (
    MAIN,
    check_lock,
    data_file,
    decoder_files,
    locate,
    model_files,
    pickles_in,
    text_files,
    texts_wanted,
    unlabelled_files,
)
from tasks.files import write_json
from tasks.models.causal_lm import new_config
from tasks.models.checkpoint import unpack_gguf
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath


def run(params: Params, *, lock: InPath, data: OutPath, teacher: OutPath) -> dict[str, Any]:
    """Return how many bytes were copied."""
    check_lock(params.sources(), lock)
    return {"copied_bytes": FETCH[params.task](params, data, teacher)}


def _rows_and_classifier(params: ClassificationParams, data: Path, teacher: Path) -> int:
    rows = data_file(locate(params.data.source, "data.source"))
    model = model_files(locate(params.teacher.model, "teacher.model"))
    _say_left_out(model)
    copied = _copy({rows.name: rows}, data) + _copy({file.name: file for file in model}, teacher)
    for folder, (key, entry) in texts_wanted(params.data.model_dump()).items():
        copied += _copy(unlabelled_files(locate(entry["source"], key)), data / folder)
    return copied


def _documents_and_decoder(params: CausalLMParams, data: Path, teacher: Path) -> int:
    sources = {"data.source": (params.data.source, MAIN)}
    for name, further in params.data.evaluation_sets.items():
        sources[f"data.evaluation_sets.{name}.source"] = (further.source, name)
    copied = sum(_copy(text_files(locate(source, key), key), data / name) for key, (source, name) in sources.items())
    if params.teacher.new is not None:
        write_json(teacher / "config.json", new_config(params.teacher.new.model_dump(), params.data.block_tokens))
    else:
        copied += _copy_decoder(locate(params.teacher.model, "teacher.model"), teacher)
    return copied


def _copy_decoder(place: Path, out: Path) -> int:
    files = decoder_files(place)
    if files[0].suffix != ".gguf":
        _say_left_out(files)
        return _copy({file.name: file for file in files}, out)
    check_gguf(files[0])
    unpack_gguf(files[0], out)
    return files[0].stat().st_size


def _say_left_out(files: list[Path]) -> None:
    if pickles := pickles_in(files[0].parent):
        say(f"fetch: left out {', '.join(pickles)}: only safetensors are read")


def _copy(files: Mapping[str, Path], out: Path) -> int:
    for name, file in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / name)
    return sum(file.stat().st_size for file in files.values())


FETCH: Final[Mapping[str, Callable[..., int]]] = {CLASSIFICATION: _rows_and_classifier, CAUSAL_LM: _documents_and_decoder}
