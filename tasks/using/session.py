"""An ONNX file that answers without torch, so that a server starts in a second.

`tasks/exports/onnx.py` runs such a file too, beside the export, which needs torch.

Letters: N rows, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import psutil

from tasks.data.tokens import Ints, TokenSet, bucketed, collate, load_tokenizer
from tasks.errors import SourceError, UserError
from tasks.using.classifier import Classifier, Logits, labels_of
from tasks.using.model import INT8, ONNX_FILES, Found, longest_text

BATCH_ROWS: Final = 32
OF_RUNTIME: Final = "onnxruntime"  # the module of the errors that it raises
# As the export calls them, whose code loads torch.
IDS, MASK, TYPES, LOGITS, PAD_KEY = "input_ids", "attention_mask", "token_type_ids", "logits", "pad_token_id"


def load_light(found: Found, form: str) -> Classifier:
    """Return the classifier of a model's ONNX file; UserError for files that cannot be used.

    That stock transformers reads texts as the same tokens is not looked at: it would be loaded for that.
    """
    file = found.file(form)
    assert file is not None, f"one of {', '.join(ONNX_FILES)}"
    longest = longest_text(found)
    try:
        tokenizer = load_tokenizer(found.folder / "tokenizer.json", longest)
    except SourceError as error:
        raise UserError(f"{found.words}: {error}") from None
    # Of int8 each text runs by itself: its scales follow from all of a batch, and so would the answers.
    return Classifier(labels_of(found.config), longest, tokenizer, open_file(file, 1 if form == INT8 else BATCH_ROWS))


def open_file(file: Path, batch_rows: int) -> Callable[[TokenSet], Logits]:
    """Return what gives the logits (N, C) of rows, in their order, by an ONNX file on the CPU; many threads may call it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = _cores(), 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may want the cores between two requests
    try:
        session = onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith(OF_RUNTIME):
            raise
        raise UserError(f"{file}: ONNX Runtime cannot read it ({' '.join(str(error).split())[:200]}); write it anew") from None
    names = {each.name for each in session.get_inputs()}
    pad_id = int(session.get_modelmeta().custom_metadata_map.get(PAD_KEY, "0"))

    def of_rows(tokens: TokenSet, rows: Ints) -> Logits:
        ids, mask = collate(tokens, rows, pad_id)
        feed = {IDS: ids, MASK: mask, TYPES: np.zeros_like(ids)}
        logits: Logits
        (logits,) = session.run([LOGITS], {name: value for name, value in feed.items() if name in names})
        return logits

    def of_all(tokens: TokenSet) -> Logits:
        batches = bucketed(tokens.lengths, batch_rows)
        parts = [of_rows(tokens, rows) for rows in batches]
        return np.concatenate(parts)[np.argsort(np.concatenate(batches), kind="stable")]

    return of_all


def _cores() -> int:
    """Return the physical cores that this process may run on, as `tasks/models/devices.py` counts them, which loads torch."""
    cores = psutil.cpu_count(logical=False) or 1
    return min(cores, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else cores
