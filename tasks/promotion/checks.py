"""What a promotion asks beyond numbers: that the records behind a version are whole, and that the model answers.

What receipts prove about a version: on which files of Git its stages ran, and that nothing is missing up to the data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError
from tasks.exports.load_back import LoadBack
from tasks.files import file_sha256, read_json
from tasks.gates.rules import Answer
from tasks.lineage.chain import LOCK, Receipts, ancestors, files_of, parse, producers
from tasks.lineage.links import links, merkle
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.promotion.golden import answered, golden_rows, reproduced
from tasks.promotion.serving import ServingError, served
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


FIRST: Final = "fetch"


def read_receipts(copies: Mapping[str, bytes], last: str) -> Receipts | str:
    """Return the receipts by stage, or the sentence why they prove nothing about what `last` wrote."""
    try:
        receipts = {stage: parse(stage, content) for stage, content in copies.items()}
    except ValueError as error:
        return f"cannot be decided: a recorded receipt cannot be read ({error})"
    if last not in receipts:
        return f"cannot be decided: no receipt of {last} is recorded; `compactlm run` does it"
    return receipts


def clean_git(receipts: Receipts, last: str) -> Answer:
    """Return whether every stage behind `last` ran on files as they were committed."""
    stages = ancestors(receipts, last)
    states = {stage: receipts[stage]["git"] or {} for stage in stages}
    commits = ", ".join(sorted({str(git["commit"])[:8] for git in states.values() if git.get("commit")}))
    edited = [stage for stage, git in states.items() if git.get("dirty") is True]
    if edited:
        words = (
            f"{len(edited)} of {len(stages)} stages ran on files that differ from commit {commits}, e.g. {edited[-1]}"
        )
        return Answer("fail", f"{words}; commit first, then run, to be sure what made the model")
    unknown = [stage for stage, git in states.items() if not git.get("commit") or git.get("dirty") is not False]
    if unknown:
        return Answer("hold", f"cannot be decided: nothing tells on which files {unknown[-1]} ran; it was not in Git")
    return Answer("pass", f"all {len(stages)} stages ran on files as they are in commit {commits}")


def lineage(
    copies: Mapping[str, bytes], receipts: Receipts, last: str, root: str | None, stored: Mapping[str, str]
) -> Answer:
    """Return whether receipts lead from `last`, the gate of a round, to the data without a gap, and are the recorded ones.

    `stored` are digests of what the registry has: end of the path under which a stage of the round wrote it -> sha256.
    """
    stages = ancestors(receipts, last)
    wrote = producers(receipts)
    unwritten = sorted(
        {path for stage in stages for path in files_of(receipts[stage], "inputs") if path not in wrote and path != LOCK}
    )
    if unwritten:
        return Answer("hold", f"cannot be decided: no receipt tells who wrote {unwritten[0]}")
    if root is None or FIRST not in stages:
        lacks = "a Merkle root of its receipts" if root is None else f"a receipt of {FIRST}"
        return Answer("hold", f"cannot be decided: the run has not {lacks}")
    broken = [one for one in [*merkle(copies, root), *links(receipts, stages)] if one.result != "PASS"]
    if broken:
        return Answer("fail", f"{broken[0].subject}: {broken[0].sentence}")
    folder = f"artifacts/rounds/{last.partition('@')[2]}/"
    outputs = {
        path: one["sha256"]
        for stage in stages
        for path, one in files_of(receipts[stage], "outputs").items()
        if path.startswith(folder)
    }
    for name, sha256 in stored.items():
        if sha256 not in [one for path, one in outputs.items() if path.endswith(f"/{name}")]:
            return Answer("fail", f"{name}: the registry has other bytes than the stages of this round wrote")
    return Answer("pass", f"{len(stages)} receipts lead from the data to the model, and their digests agree")
