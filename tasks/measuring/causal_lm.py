"""A language model measured: what it says of every set, as the table that is stored (one row a block of the teacher's), how
good that is, and what a further token costs beside the teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from tasks.artifacts import Cost, Interval, Quality, SetQuality
from tasks.data.blocks import block_ids, load_blocks
from tasks.data.byte_pairs import token_bytes
from tasks.data.frames import rows_sha256
from tasks.data.segments import block_bytes, load_segments
from tasks.data.vocabulary import kept_at_teacher
from tasks.files import read_json
from tasks.measuring.cost import cost_of
from tasks.measuring.latency import compare_token_latencies, continued
from tasks.measuring.perplexity import measure_blocks, repetition_rate
from tasks.measuring.predictions import BLOCK_COLUMNS, SAMPLES, TEACHERS, agreed_pieces, of_teacher, write_predictions
from tasks.measuring.quality import interval_of_mean
from tasks.measuring.subject import BlockSettings, Subject, Teacher, quality_of
from tasks.models.causal_lm import flops_per_token
from tasks.models.checkpoint import load_causal_lm, read_config
from tasks.models.devices import Device
from tasks.models.predict import predict_tokens
from tasks.progress import Progress

CHUNK_TOKENS: Final = 512
SAMPLED_SET: Final = "test"


def measure_sets(subject: Subject, teacher: Teacher, settings: BlockSettings, out: Path, device: Device) -> Quality:
    """Return the content of quality.json; the predictions of every set are written below `out`."""
    sizes = subject.model.config.vocab_size, read_config(teacher.folder)["vocab_size"]
    kept_V = kept_at_teacher(subject.tokens, teacher.folder, sizes)
    beside = load_causal_lm(teacher.folder) if kept_V is not None else None
    reader = Reader(subject.model, beside, kept_V, settings.batch_blocks, device)
    entries: dict[str, SetQuality] = {}
    for name in settings.sets:
        rows = reader.read(subject.tokens, name, f"evaluate@{subject.round} {name}")
        teachers = rows
        if teacher.evaluated is not None:
            teachers = of_teacher(teacher.evaluated, name, rows, BLOCK_COLUMNS)
        rows["agreed"], _ = agreed_pieces(rows, teachers)
        entries[name] = {
            "rows": len(rows),
            "rows_sha256": rows_sha256(rows["row_id"]),
            "variants": {},
            "slices": {"overall": measure_blocks(rows, teachers, settings.draws)},
        }
        write_predictions(rows, out / "predictions", name)
    entries[SAMPLED_SET]["variants"] = {"greedy": {"repetition_rate": _repetition(subject, settings, out)}}
    return quality_of(subject, settings.draws.confidence, entries)


def measure_cost(subject: Subject, teacher: Teacher, settings: BlockSettings) -> Cost:
    """Return the content of cost.json; its latency is that of one more token."""
    cost = cost_of(subject, settings.timing)
    cost["flops_per_token"] = flops_per_token(subject.model.config.to_dict(), settings.timing.tokens)
    beside = subject.model if subject.folder == teacher.folder else load_causal_lm(teacher.folder)
    cost["latency"] = {"torch": compare_token_latencies(subject.model, beside, settings.timing)}
    return cost


def _repetition(subject: Subject, settings: BlockSettings, out: Path) -> Interval:
    """Return how much greedy continuations repeat themselves; they are written below `out`."""
    prompts = np.asarray(load_blocks(subject.tokens, SAMPLED_SET)[: settings.prompts], dtype=np.int64)
    samples = continued(subject.model, prompts[:, : settings.prompt_tokens], settings.new_tokens)
    rates = np.array([repetition_rate(sample.tolist()) for sample in samples])
    write_predictions(pd.DataFrame({"sample": list(samples), "repetition_rate": rates}), out / "predictions", SAMPLES)
    return interval_of_mean(rates, settings.draws)


@dataclass(frozen=True)
class Reader:
    """A model, the teacher whose ids its tokens have as `kept_V` (both None where the tokens are the teacher's), and how."""

    model: Any
    teacher: Any
    kept_V: torch.Tensor | None
    batch_blocks: int
    device: Device

    def read(self, tokens: Path, name: str, label: str) -> pd.DataFrame:
        """Return `row_id`, `tokens` and `bytes` of the teacher's blocks, `nll_nats`, and `choices` of the model's own tokens.

        `label` is what the progress is of.
        """
        if self.kept_V is None:
            return self._read_blocks(tokens, name, label)
        return self._read_segments(tokens, name, label, self.kept_V)

    def _read_blocks(self, tokens: Path, name: str, label: str) -> pd.DataFrame:
        blocks = load_blocks(tokens, name)
        how = (blocks, self.batch_blocks, CHUNK_TOKENS, self.device)
        nll_NT, choices_NT = predict_tokens(self.model, *how, Progress(label, len(blocks), "blocks").update)
        return pd.DataFrame(
            {
                "row_id": block_ids(blocks),
                "tokens": np.full(len(blocks), choices_NT.shape[1], dtype=np.int64),
                "bytes": block_bytes(blocks, read_json(tokens / "tokenizer.json")),
                "nll_nats": nll_NT.sum(axis=1, dtype=np.float64),
                "choices": list(choices_NT),
            }
        )

    def _read_segments(self, tokens: Path, name: str, label: str, kept_V: torch.Tensor) -> pd.DataFrame:
        """Return the same of a student with other tokens, and what the teacher holds most likely of these.

        `nll_nats` is the sum over the student's tokens but the first, times the bytes which the teacher was asked for over those
        which the student was: their first tokens are not equally long.
        """
        stored = load_segments(tokens, name)
        assert stored is not None, "a student with other tokens has segments"
        segments, windows = stored
        how = (windows.ids_WT, self.batch_blocks, CHUNK_TOKENS, self.device)
        nll_WT, choices_WT = predict_tokens(self.model, *how, Progress(label, len(windows.ids_WT), "windows").update)
        _, teachers_WT = predict_tokens(self.teacher, *how, None, kept_V.to(self.device.device))
        sizes_WT = token_bytes(read_json(tokens / "tokenizer.json"))[windows.ids_WT[:, 1:]]
        asked = np.array([sizes.sum() for sizes in windows.per_segment(sizes_WT)])
        nats = np.array([nll.sum(dtype=np.float64) for nll in windows.per_segment(nll_WT)])
        return pd.DataFrame(
            {
                **{column: segments[column].to_numpy() for column in ("row_id", "tokens", "bytes")},
                "nll_nats": nats * segments["bytes"].to_numpy() / asked,
                "choices": windows.per_segment(choices_WT),
                TEACHERS: windows.per_segment(teachers_WT),
            }
        )
