"""Cuts the documents into sets by hash, and packs each into blocks of tokens.

deps: fetched/{data,teacher}, validation/summary.json | params: data
outs: data/{sets,summary.json}, rounds/teacher/tokens
A new teacher gets its tokenizer here, trained on the training documents alone; the tokenizer lies beside the blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.blocks import pack_sets
from tasks.data.bpe import train_tokenizer
from tasks.data.documents import make_document_sets, read_documents
from tasks.data.sources import MAIN
from tasks.files import digest, write_json
from tasks.models.checkpoint import copy_tokenizer, end_id, read_config
from tasks.params.causal_lm import CausalData, CausalLMParams, TextColumns
from tasks.running.stage import InPath, OutPath


def run(
    params: CausalLMParams,
    *,
    data: InPath,
    teacher: InPath,
    validation: InPath,  # noqa: ARG001 - read by nobody, but there is nothing to prepare before the data is valid
    sets: OutPath,
    summary: OutPath,
    tokens: OutPath,
) -> dict[str, Any]:
    """Return the number of documents, blocks and tokens of each set."""
    frames = document_sets(params.data, data)
    sets.mkdir(parents=True, exist_ok=True)
    tokens.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.to_parquet(sets / f"{name}.parquet", index=False)
    config = read_config(teacher)
    if (teacher / "tokenizer.json").exists():
        copy_tokenizer(teacher, tokens)
    else:
        train_tokenizer(frames["train"]["text"].tolist(), config["vocab_size"], tokens)
    described = pack_sets(params, frames, end_id(config), tokens)
    write_json(summary, {"sha256": digest(data)["sha256"], "sets": described})
    return {"sets": described}


def document_sets(section: CausalData, data: Path) -> dict[str, pd.DataFrame]:
    """Return the sets of documents that follow from the fetched data."""
    others = {
        name: read_documents(data / name, column_names(one.columns), f"data.evaluation_sets.{name}")
        for name, one in section.evaluation_sets.items()
    }
    main = read_documents(data / MAIN, column_names(section.columns), "data")
    return make_document_sets(main, others, section.model_dump())


def column_names(columns: TextColumns | None) -> dict[str, str | None] | None:
    """Return the columns as plain values."""
    return None if columns is None else columns.model_dump()
