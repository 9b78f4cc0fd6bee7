"""Cuts the data into sets, and each set into tokens: rows by the teacher's tokenizer, documents into blocks of one length.

A new teacher gets its tokenizer here, trained on the training documents alone; the tokenizer lies beside the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tasks.data import causal_lm, classification
from tasks.data.blocks import pack_sets
from tasks.data.bpe import train_tokenizer
from tasks.data.frames import write_sets
from tasks.data.sources import rows_file
from tasks.data.stress import form_lines, forms_of
from tasks.data.transfer import too_few
from tasks.errors import DataError
from tasks.files import digest, file_sha256, read_json, write_json
from tasks.models.checkpoint import copy_tokenizer, end_id, read_config
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath


def run(
    params: Params, *, data: InPath, teacher: InPath, validation: InPath, sets: OutPath, summary: OutPath, tokens: OutPath
) -> dict[str, Any]:
    """Return how many rows and tokens each set has, of a language model also how many blocks; DataError for faulty data."""
    if not read_json(validation)["success"]:
        raise DataError(f"{validation}: the data has faults; mend them and run `dvc repro validate_data`")
    prepared = PREPARE[params.task](params, data, teacher, sets, tokens)
    write_json(summary, prepared)
    return {"sets": prepared["sets"]}


def _rows(params: ClassificationParams, data: Path, teacher: Path, sets: Path, tokens: Path) -> dict[str, Any]:
    file, section = rows_file(data), params.data.model_dump()
    frames = classification.sets_of(data, section)
    write_sets(frames, sets)
    shares = forms_of(frames)
    for line in (*too_few(frames["transfer"], section["transfer"]), *form_lines(shares)):
        say(line)
    described = classification.save_set_tokens(frames, teacher / "tokenizer.json", params.data.max_tokens, tokens)
    return {"file": file.name, "sha256": file_sha256(file), "sets": described, "forms": shares}


def _documents(params: CausalLMParams, data: Path, teacher: Path, sets: Path, tokens: Path) -> dict[str, Any]:
    section, config = params.data.model_dump(), read_config(teacher)
    frames = causal_lm.sets_of(data, section)
    write_sets(frames, sets)
    tokens.mkdir(parents=True, exist_ok=True)
    if (teacher / "tokenizer.json").exists():
        copy_tokenizer(teacher, tokens)
    else:
        train_tokenizer(frames["train"]["text"].tolist(), config["vocab_size"], tokens)
    return {"sha256": digest(data)["sha256"], "sets": pack_sets(section, frames, end_id(config), tokens)}


PREPARE: Final[dict[str, Callable[..., dict[str, Any]]]] = {CLASSIFICATION: _rows, CAUSAL_LM: _documents}
