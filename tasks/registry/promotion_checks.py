"""What a promotion asks beyond numbers: that the records behind a version are whole, and that the model answers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError
from tasks.evaluation.rules import Answer
from tasks.lineage.audit_chain import links, merkle
from tasks.lineage.chain import LOCK, ancestors, files_of, parse, producers
from tasks.lineage.files import file_sha256, read_json
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.models.load_back import LoadBack
from tasks.registry.serving import ServingError, served
from tasks.registry.tracking import Tracker

Version = Mapping[str, Any]
EVIDENCE: Final = ("verdict.json", "quality.json", "cost.json", "parity.json", "golden.json")
WEIGHTS: Final = "trained/model/model.safetensors"
NO_LIMIT: Final = 100_000  # golden texts are short; none is cut


def answers(tracker: Tracker, candidate: Version, asked: Collection[str]) -> dict[str, Answer]:
    """Return what each check that is asked finds of a version."""
    found: dict[str, Answer] = {}
    if {"clean_git", "lineage"} & set(asked):
        found |= _of_records(tracker, candidate)
    if {"golden", "serves"} & set(asked):
        found |= _of_model(tracker, candidate, asked)
    return {name: answer for name, answer in found.items() if name in asked}


def _of_records(tracker: Tracker, candidate: Version) -> dict[str, Answer]:
    run = tracker.parent_of(candidate["run_id"]) if candidate["run_id"] else None
    copies = _receipts(tracker, run) if run else {}
    try:
        receipts = {stage: parse(stage, content) for stage, content in copies.items()}
    except ValueError as error:
        broken = Answer("hold", f"cannot be decided: a recorded receipt cannot be read ({error})")
        return {"clean_git": broken, "lineage": broken}
    last = f"gate@{candidate['round']}"
    if run is None or last not in receipts:
        none = Answer("hold", f"cannot be decided: no receipt of {last} is recorded; `compactlm run` does it")
        return {"clean_git": none, "lineage": none}
    stages = ancestors(receipts, last)
    root = tracker.run_tags(run).get(RECEIPTS_ROOT)
    return {
        "clean_git": clean_git(receipts, stages),
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


def clean_git(receipts: Mapping[str, Mapping[str, Any]], stages: Sequence[str]) -> Answer:
    """Return whether every stage behind the version ran on files as they were committed."""
    states = {stage: receipts[stage].get("git") or {} for stage in stages}
    edited = [stage for stage, git in states.items() if git.get("dirty") is True]
    commits = sorted({str(git["commit"])[:8] for git in states.values() if git.get("commit")})
    unknown = [stage for stage, git in states.items() if not git.get("commit") or git.get("dirty") not in (True, False)]
    if edited:
        words = f"{len(edited)} of {len(stages)} stages ran on files that differ from commit {', '.join(commits)}"
        return Answer("fail", f"{words}, e.g. {edited[-1]}; commit first and run again to be sure what made the model")
    if unknown:
        return Answer("hold", f"cannot be decided: {unknown[-1]} ran outside of Git, so nothing tells on which files")
    return Answer("pass", f"all {len(stages)} stages ran on files as they are in commit {', '.join(commits)}")


def lineage(
    copies: Mapping[str, bytes], receipts: Mapping[str, Mapping[str, Any]], last: str, root: str | None,
    stored: Mapping[str, str],
) -> Answer:  # fmt: skip
    """Return whether receipts lead from `last`, the gate of a round, to the data without a gap, and are the recorded ones.

    `stored` are digests of what the registry has: end of the path under which a stage of the round wrote it -> sha256.
    """
    stages = ancestors(receipts, last)
    wrote = producers(receipts)
    unwritten = sorted({path for stage in stages for path in files_of(receipts[stage], "inputs")
                        if path not in wrote and path != LOCK})  # fmt: skip
    if unwritten:
        return Answer("hold", f"cannot be decided: no receipt tells who wrote {unwritten[0]}")
    if root is None or "fetch" not in stages:
        lacks = "a Merkle root of its receipts" if root is None else "a receipt of the stage that fetched the data"
        return Answer("hold", f"cannot be decided: the run has not {lacks}")
    broken = [one for one in [*merkle(copies, root), *links(receipts, stages)] if one.result != "PASS"]
    if broken:
        return Answer("fail", f"{broken[0].subject}: {broken[0].sentence}")
    folder = f"artifacts/rounds/{last.partition('@')[2]}/"
    outputs = {path: one["sha256"] for stage in stages for path, one in files_of(receipts[stage], "outputs").items()
               if path.startswith(folder)}  # fmt: skip
    for name, sha256 in stored.items():
        if sha256 not in [one for path, one in outputs.items() if path.endswith(f"/{name}")]:
            return Answer("fail", f"{name}: the registry has other bytes than the stages of this round wrote")
    return Answer("pass", f"{len(stages)} receipts lead from the data to the model, and their digests agree")


def _of_model(tracker: Tracker, candidate: Version, asked: Collection[str]) -> dict[str, Answer]:
    path = tracker.local_file(candidate["run_id"], "evidence/golden.json") if candidate["run_id"] else None
    rows = read_json(path).get("rows") if path is not None else None
    if path is None or not rows or not candidate["model_id"]:
        none = Answer("hold", "cannot be decided: no golden answers are recorded; `compactlm run` does it")
        return {"golden": none, "serves": none}
    atol = float(read_json(path)["atol"])
    folder = tracker.local_model(candidate["model_id"])
    found = {}
    if "golden" in asked:
        found["golden"] = golden(folder / "artifacts" / "model", rows, atol)
    if "serves" in asked:
        found["serves"] = serves(folder, rows, atol)
    return found


def golden(folder: Path, rows: Sequence[Mapping[str, Any]], atol: float) -> Answer:
    """Return whether a fresh process with stock classes gives the golden logits from a model folder."""
    texts = [str(row["text"]) for row in rows]
    try:
        with LoadBack(folder, texts, NO_LIMIT, threads=1, alone=texts) as fresh:
            _, alone = fresh.logits()
    except StageError as error:
        return Answer("fail", str(error).splitlines()[-1])
    found = max(abs(float(mine) - float(one)) for row, line in zip(rows, alone, strict=True)
                for mine, one in zip(line, row["logits"], strict=True))  # fmt: skip
    if not found <= atol:
        return Answer("fail", f"a fresh process gives logits that differ by {found:.2g}; at most {atol:g} is allowed")
    return Answer("pass", f"a fresh process gives the {len(rows)} golden answers; logits differ by {found:.2g} at most")


def serves(folder: Path, rows: Sequence[Mapping[str, Any]], atol: float) -> Answer:
    """Return whether `mlflow models serve` starts on a model and gives the golden labels with their probabilities."""
    try:
        told = served(folder, [str(row["text"]) for row in rows])
    except ServingError as error:
        return Answer(error.result, str(error))
    if not isinstance(told, list) or len(told) != len(rows):
        return Answer("fail", f"the server answered {str(told)[:80]!r} to {len(rows)} texts")
    for row, answer in zip(rows, told, strict=True):
        label, score = answer.get("label"), answer.get("score")
        wanted = _probability(row["logits"])
        if label != row["label"] or not isinstance(score, float) or not abs(score - wanted) <= atol:
            words = f"{label} with {score} where {row['label']} with {wanted:.6f} is right"
            return Answer("fail", f"the server answers {row['text'][:40]!r}: {words}")
    return Answer("pass", f"`mlflow models serve` gives the {len(rows)} golden answers, probabilities within {atol:g}")


def _probability(logits: Sequence[float]) -> float:
    """Return the softmax of the largest logit."""
    largest = max(logits)
    return 1.0 / sum(math.exp(one - largest) for one in logits)
