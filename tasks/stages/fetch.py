"""Copies the teacher and the data from their sources into the workspace, checked against sources.lock.

deps: sources.lock | params: data.source, teacher.model | outs: fetched/data, fetched/teacher
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasks.data.sources import check_lock, data_file, locate, model_files
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath


def run(params: ClassificationParams, *, lock: InPath, data: OutPath, teacher: OutPath) -> dict[str, Any]:
    """Return how many bytes were copied."""
    check_lock(params.sources(), lock)
    copied = _copy([data_file(locate(params.data.source, "data.source"))], data)
    copied += _copy(model_files(locate(params.teacher.model, "teacher.model")), teacher)
    return {"copied_bytes": copied}


def _copy(files: list[Path], out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, out / path.name)
    return sum(path.stat().st_size for path in files)
