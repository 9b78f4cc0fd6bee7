"""Which of the teacher's tokens a student has."""

from __future__ import annotations

from pathlib import Path

import torch

from tasks.lineage.files import file_sha256, read_json
from tasks.pruning.vocabulary import ids_at_teacher


def kept_at_teacher(tokens: Path, teacher: Path) -> torch.Tensor | None:
    """Return the teacher's id of each of a student's tokens, int64 (V,); None where the tokenizers are the same.

    Both are folders with a tokenizer.json. Raises DataError when the student has a token that the teacher has not.
    """
    if file_sha256(tokens / "tokenizer.json") == file_sha256(teacher / "tokenizer.json"):
        return None
    return torch.from_numpy(ids_at_teacher(*(read_json(place / "tokenizer.json") for place in (tokens, teacher))))
