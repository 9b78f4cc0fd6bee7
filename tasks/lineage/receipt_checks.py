"""What receipts prove about a version: on which files of Git its stages ran, and that nothing is missing up to the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.evaluation.rules import Answer
from tasks.lineage.audit_chain import links, merkle
from tasks.lineage.chain import LOCK, Receipts, ancestors, files_of, parse, producers

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
    unwritten = sorted({path for stage in stages for path in files_of(receipts[stage], "inputs")
                        if path not in wrote and path != LOCK})  # fmt: skip
    if unwritten:
        return Answer("hold", f"cannot be decided: no receipt tells who wrote {unwritten[0]}")
    if root is None or FIRST not in stages:
        lacks = "a Merkle root of its receipts" if root is None else f"a receipt of {FIRST}"
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
