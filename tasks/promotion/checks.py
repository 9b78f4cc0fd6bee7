"""What a promotion asks beyond numbers: that the records behind a version are whole, and that the model answers.

What receipts prove about a version: on which files of Git its stages ran, and that nothing is missing up to the data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from tasks.artifacts import ROUNDS, WEIGHTS
from tasks.errors import StageError
from tasks.exports.load_back import LoadBack
from tasks.files import file_sha256
from tasks.gates.rules import Answer
from tasks.lineage.chain import LOCK, Receipts, ancestors, files_of, parse, producers
from tasks.lineage.links import links, merkle
from tasks.promotion.golden import Row, answered, asked_of, golden_rows, reproduced
from tasks.promotion.serving import ServingError, served
from tasks.promotion.versions import Version

TRAINED: Final = f"trained/model/{WEIGHTS}"
OF_MODEL: Final = ("golden", "serves")  # they start processes that load the model
NO_LIMIT: Final = 100_000  # tokens; golden texts are short, none is cut
FIRST: Final = "fetch"


def answers(version: Version, asked: Collection[str]) -> dict[str, Answer]:
    """Return what each check that is asked finds of a version."""
    results: dict[str, Answer] = {}
    if {"clean_git", "lineage"} & set(asked):
        results |= _of_records(version)
    if set(OF_MODEL) & set(asked):
        results |= _of_model(version, asked)
    return {name: answer for name, answer in results.items() if name in asked}


def _of_records(version: Version) -> dict[str, Answer]:
    last = f"gate@{version.record['round']}"
    if version.receipts is None:
        return dict.fromkeys(("clean_git", "lineage"), Answer("hold", "cannot be decided: its run is not recorded"))
    receipts = read_receipts(version.receipts, last)
    if isinstance(receipts, str):
        return dict.fromkeys(("clean_git", "lineage"), Answer("hold", receipts))
    # Files below the round's folder of which the registry has a copy; evidence by its name alone.
    stored = {TRAINED: str(version.record["model_sha256"])}
    stored |= {name: file_sha256(path) for name, path in version.evaluation.evidence.items()}
    return {
        "clean_git": clean_git(receipts, last),
        "lineage": lineage(version.receipts, receipts, last, version.receipts_root, stored),
    }


def _of_model(version: Version, asked: Collection[str]) -> dict[str, Answer]:
    golden = golden_rows(version.evaluation.read("golden.json"))
    if golden is None or version.model is None:
        none = Answer("hold", "cannot be decided: no golden answers are recorded; `compactlm run` does it")
        return dict.fromkeys(OF_MODEL, none)
    ask = {"golden": _fresh, "serves": _served}
    return {name: ask[name](version.model, *golden) for name in OF_MODEL if name in asked}


def _fresh(model: Path, rows: Sequence[Row], atol: float) -> Answer:
    """Return whether a process that loads the model anew gives the golden answers."""
    texts = asked_of(rows)
    try:
        with LoadBack(model / "artifacts" / "model", texts[:1], NO_LIMIT, threads=1, alone=texts) as fresh:
            return reproduced(rows, fresh.logits()[1], atol)
    except StageError as error:
        return Answer("fail", str(error).splitlines()[-1])


def _served(model: Path, rows: Sequence[Row], atol: float) -> Answer:
    """Return whether MLflow's server of the model gives the golden answers."""
    try:
        return answered(rows, served(model, asked_of(rows)), atol)
    except ServingError as error:
        return Answer(error.result, str(error))


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
        words = f"{len(edited)} of {len(stages)} stages ran on files that differ from commit {commits}, e.g. {edited[-1]}"
        return Answer("fail", f"{words}; commit first, then run, to be sure what made the model")
    unknown = [stage for stage, git in states.items() if not git.get("commit") or git.get("dirty") is not False]
    if unknown:
        return Answer("hold", f"cannot be decided: nothing tells on which files {unknown[-1]} ran; it was not in Git")
    return Answer("pass", f"all {len(stages)} stages ran on files as they are in commit {commits}")


def lineage(copies: Mapping[str, bytes], receipts: Receipts, last: str, root: str | None, stored: Mapping[str, str]) -> Answer:
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
    broken = [finding for finding in [*merkle(copies, root), *links(receipts, stages)] if finding.result != "PASS"]
    if broken:
        return Answer("fail", f"{broken[0].subject}: {broken[0].sentence}")
    folder = f"{ROUNDS}/{last.partition('@')[2]}/"
    outputs = {
        path: facts["sha256"]
        for stage in stages
        for path, facts in files_of(receipts[stage], "outputs").items()
        if path.startswith(folder)
    }
    for name, sha256 in stored.items():
        if sha256 not in [written for path, written in outputs.items() if path.endswith(f"/{name}")]:
            return Answer("fail", f"{name}: the registry has other bytes than the stages of this round wrote")
    return Answer("pass", f"{len(stages)} receipts lead from the data to the model, and their digests agree")
