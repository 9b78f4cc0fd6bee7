"""Caches nothing for a language model: its logits would be gigabytes, so distillation runs the teacher beside the student.

deps: teacher/model, blocks | params: data | outs: teacher_logits/ with the fingerprint that `distill` checks
"""

from __future__ import annotations

from typing import Any

from tasks.lineage.files import file_sha256, write_json
from tasks.params_causal import CausalParams
from tasks.stage import InPath, OutPath


def run(
    params: CausalParams,  # noqa: ARG001 - nothing is to choose
    *,
    teacher: InPath,
    sets: InPath,  # noqa: ARG001 - the same arguments as for a classifier
    tokens: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return that no block was cached."""
    out.mkdir(parents=True, exist_ok=True)
    fingerprint = {
        "teacher_sha256": file_sha256(teacher / "model.safetensors"),
        "tokenizer_sha256": file_sha256(tokens / "tokenizer.json"),
    }
    write_json(out / "fingerprint.json", fingerprint)
    return {"rows": 0}
