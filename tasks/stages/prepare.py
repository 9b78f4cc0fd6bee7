"""Cleans, de-duplicates and splits the rows into sets, and tokenises each once with the teacher's tokenizer.

deps: fetched/{data,teacher}, validation/summary.json | params: data
outs: data/{sets,summary.json}, rounds/teacher/tokens
"""

from __future__ import annotations

from typing import Any

from tasks.data.frames import rows_sha256, write_sets
from tasks.data.read import read_rows
from tasks.data.sources import data_file
from tasks.data.splits import make_sets
from tasks.data.tokens import save_tokens, tokenize
from tasks.data.transfer import too_few
from tasks.data.typos import with_typo_set
from tasks.files import file_sha256, write_json
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath


def run(
    params: ClassificationParams,
    *,
    data: InPath,
    teacher: InPath,
    validation: InPath,  # noqa: ARG001 - read by nobody, but there is nothing to prepare before the data is valid
    sets: OutPath,
    summary: OutPath,
    tokens: OutPath,
) -> dict[str, Any]:
    """Return the number of rows and tokens of each set."""
    section = params.data.model_dump()
    file = data_file(data)
    frames = with_typo_set(make_sets(read_rows(file, section), section), section)
    write_sets(frames, sets)
    for line in too_few(frames["transfer"], section["transfer"]):
        say(line)
    described = {}
    for name, frame in frames.items():
        tokenised = tokenize(frame["text"].tolist(), teacher / "tokenizer.json", params.data.max_tokens)
        save_tokens(tokenised, tokens / name)
        labels = frame["label"].value_counts().sort_index()
        described[name] = {
            "rows": len(frame),
            "rows_sha256": rows_sha256(frame["row_id"]),
            "tokens": int(tokenised.offsets[-1]),
            "labels": {str(label): int(count) for label, count in labels.items()},
        }
    write_json(summary, {"file": file.name, "sha256": file_sha256(file), "sets": described})
    return {"sets": described}
