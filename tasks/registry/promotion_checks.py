"""What a promotion asks beyond numbers: that the records behind a version are whole, and that the model answers."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError
from tasks.evaluation.golden import answered, golden_rows, reproduced
from tasks.evaluation.rules import Answer
from tasks.lineage.files import file_sha256, read_json
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.lineage.receipt_checks import clean_git, lineage, read_receipts
from tasks.models.load_back import LoadBack
from tasks.registry.serving import ServingError, served
from tasks.registry.tracking import Tracker

Version = Mapping[str, Any]
EVIDENCE: Final = ("verdict.json", "quality.json", "cost.json", "parity.json", "golden.json")
WEIGHTS: Final = "trained/model/model.safetensors"
OF_MODEL: Final = ("golden", "serves")  # they start processes that load the model
NO_LIMIT: Final = 100_000  # tokens; golden texts are short, none is cut


def answers(tracker: Tracker, candidate: Version, asked: Collection[str]) -> dict[str, Answer]:
    """Return what each check that is asked finds of a version."""
    found: dict[str, Answer] = {}
    if {"clean_git", "lineage"} & set(asked):
        found |= _of_records(tracker, candidate)
    if set(OF_MODEL) & set(asked):
        found |= _of_model(tracker, candidate, asked)
    return {name: answer for name, answer in found.items() if name in asked}


def _of_records(tracker: Tracker, candidate: Version) -> dict[str, Answer]:
    last = f"gate@{candidate['round']}"
    run = tracker.parent_of(candidate["run_id"]) if candidate["run_id"] else None
    copies = _receipts(tracker, run) if run else {}
    receipts = read_receipts(copies, last)
    if run is None or isinstance(receipts, str):
        none = Answer("hold", receipts if isinstance(receipts, str) else "cannot be decided: its run is not recorded")
        return {"clean_git": none, "lineage": none}
    root = tracker.run_tags(run).get(RECEIPTS_ROOT)
    return {
        "clean_git": clean_git(receipts, last),
        "lineage": lineage(copies, receipts, last, root, _stored(tracker, candidate)),
    }


def _receipts(tracker: Tracker, run: str) -> dict[str, bytes]:
    """Return stage -> bytes of the receipts recorded with a run, fetched anew."""
    with tempfile.TemporaryDirectory(prefix="compactlm-receipts-") as scratch:
        folder = tracker.run_files(run, "receipts", Path(scratch))
        return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.json"))} if folder else {}


def _stored(tracker: Tracker, candidate: Version) -> dict[str, str]:
    """Return file below the round's folder -> sha256 of what the registry has of it; evidence by its name alone."""
    found = {WEIGHTS: str(candidate["model_sha256"])}
    for name in EVIDENCE:
        path = tracker.local_file(candidate["run_id"], f"evidence/{name}")
        if path is not None:
            found[name] = file_sha256(path)
    return found


def _of_model(tracker: Tracker, candidate: Version, asked: Collection[str]) -> dict[str, Answer]:
    path = tracker.local_file(candidate["run_id"], "evidence/golden.json") if candidate["run_id"] else None
    known = golden_rows(read_json(path)) if path is not None else None
    if known is None or not candidate["model_id"]:
        none = Answer("hold", "cannot be decided: no golden answers are recorded; `compactlm run` does it")
        return dict.fromkeys(OF_MODEL, none)
    rows, atol = known
    texts = [str(row["text"]) for row in rows]
    folder = tracker.local_model(candidate["model_id"])
    found = {}
    if "golden" in asked:
        try:
            with LoadBack(folder / "artifacts" / "model", texts[:1], NO_LIMIT, threads=1, alone=texts) as fresh:
                found["golden"] = reproduced(rows, fresh.logits()[1], atol)
        except StageError as error:
            found["golden"] = Answer("fail", str(error).splitlines()[-1])
    if "serves" in asked:
        try:
            found["serves"] = answered(rows, served(folder, texts), atol)
        except ServingError as error:
            found["serves"] = Answer(error.result, str(error))
    return found
