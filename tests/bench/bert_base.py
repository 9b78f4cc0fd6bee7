"""How long the rounds of params/bert-base-sst2.yaml take to prune, and what is gained: BERT-base's shape, random weights.

Text and tokenizer are those of a finished default run, whose teacher reads BERT's own 30,522 pieces.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
from transformers import BertConfig

from tasks.errors import UserError
from tasks.measuring.cost import LATENCY_THREADS, weights_bytes
from tasks.measuring.latency import compare_latencies
from tasks.measuring.subject import Timing
from tasks.models.checkpoint import classifier_from_config, load_classifier, save_classifier
from tasks.params.classification import ClassificationParams
from tasks.params.file import load_params
from tasks.stages import prune

PARAMS: Final = Path(__file__).parents[2] / "params" / "bert-base-sst2.yaml"


def measure(workspace: Path, turns: int) -> dict[str, Any]:
    """Return the seconds of each round's stage `prune`, parameters, bytes and latency of its student beside the teacher's."""
    params = load_params(PARAMS)
    assert isinstance(params, ClassificationParams)
    artifacts = workspace / "artifacts"
    of_run, sets = artifacts / "rounds" / "teacher", artifacts / "data" / "sets"
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        torch.manual_seed(params.seed)
        model = classifier_from_config(BertConfig(num_labels=len(params.data.labels)).to_dict())
        save_classifier(model, of_run / "trained" / "model", teacher)
        if load_classifier(of_run / "trained" / "model").config.vocab_size != model.config.vocab_size:
            raise UserError(f"{of_run}: its tokenizer is not BERT's; measure on a run of the shipped params.yaml")
        facts: dict[str, Any] = {"teacher_params_total": model.num_parameters(), "threads": LATENCY_THREADS}
        facts["rounds"] = {}
        parent, tokens = teacher, of_run / "tokens"
        for name in params.rounds:
            out, student_tokens = Path(folder) / name, Path(folder) / f"{name}-tokens"
            began = time.perf_counter()
            prune.run(
                params,
                round=name,
                parent=parent,
                tokens=tokens,
                sets=sets,
                teacher=teacher,
                out=out,
                planned=out / "planned.json",
                student_tokens=student_tokens,
            )
            seconds = time.perf_counter() - began
            parent, tokens = out / "model", student_tokens
            student = load_classifier(parent)
            latencies = compare_latencies(
                student, model, {}, Timing(params.evaluate.latency_batches, params.evaluate.latency_tokens, turns)
            )
            facts["rounds"][name] = {
                "prune_seconds": round(seconds, 1),
                "params_total": student.num_parameters(),
                "times_fewer_parameters": round(model.num_parameters() / student.num_parameters(), 2),
                "times_fewer_bytes": round(weights_bytes(teacher) / weights_bytes(parent), 2),
                **{f"batch_{rows}": found for rows, found in latencies["torch"].items()},
            }
    return facts
