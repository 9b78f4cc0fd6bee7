"""All that an audit derives again from stored files, where it can in a process of its own: its libraries take seconds to import.

Meanwhile the audit itself reads MLflow and Git; a machine with two cores does both in the time of the longer one.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tasks.artifacts import TEACHER, RoundPaths
from tasks.audit import causal_lm, classification
from tasks.audit.evidence import Places
from tasks.audit.rederive import best_checkpoint, derived, judged
from tasks.errors import StageError
from tasks.lineage.chain import Receipts, Role, evaluation_of, files_of, rounds_of
from tasks.lineage.checks import Finding
from tasks.params.base import CAUSAL_LM, CLASSIFICATION

PRUNED: Final = {CLASSIFICATION: classification.pruned, CAUSAL_LM: causal_lm.pruned}
MEASURED: Final = {CLASSIFICATION: classification.measured, CAUSAL_LM: causal_lm.measured}


@dataclass(frozen=True)
class Question:
    """What is to be derived again: all that leads to the verdict on the round `judged`."""

    receipts: Receipts
    stages: Sequence[str]  # those behind the verdict, in the order in which they can run
    judged: str
    places: Places
    view: Path  # a folder as `rederive.make_view` makes it of the places

    @property
    def task(self) -> str:
        """Return the task of the run; versions before the key knew nothing but classifiers."""
        return str(self.receipts[f"gate@{self.judged}"]["params"].get("task", CLASSIFICATION))

    def parent_of(self, name: str, stage: str) -> str:
        """Return the parent of a round, by the params that a stage read."""
        return str(self.receipts[stage]["params"]["rounds"][name]["parent"])

    def needs(self, stage: str, *roles: Role) -> dict[str, Path | None]:
        """Return path -> place of the files that a stage read and wrote (or those of the roles given)."""
        files = files_of(self.receipts[stage], *roles)
        return {path: self.places[path] for path in files if path in self.places}


Start = Callable[[Question], Callable[[], list[Finding]]]


@contextmanager
def deriver() -> Iterator[Start]:
    """Yield what starts `derive` and returns what waits for its checks; a process that has torch already needs no other one.

    Raises StageError, while waiting, when the other process ended without an answer.
    """
    if "torch" in sys.modules:
        yield lambda question: partial(derive, question)
        return
    context = get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    own_end, other_end = context.Pipe()
    process = context.Process(target=_serve, args=(other_end,), daemon=True)
    process.start()
    other_end.close()

    def start(question: Question) -> Callable[[], list[Finding]]:
        own_end.send(question)
        return answer

    def answer() -> list[Finding]:
        try:
            return list(own_end.recv())
        except EOFError:
            process.join()
            raise StageError("audit", f"deriving again ended with exit code {process.exitcode}") from None

    try:
        yield start
    finally:
        process.terminate()
        process.join()


def _serve(asker: Connection) -> None:
    """Answer one question, with the imports under way before it comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the audit, which ends this process
    threading.Thread(target=_import).start()  # not here: a long question has to be taken off the pipe at once
    asker.send(derive(asker.recv()))


def _import() -> None:
    from tasks.models.checkpoint import preload

    preload()


def derive(question: Question) -> list[Finding]:
    """Return whether weights, numbers and the verdict about the round `judged` follow from the files of the view."""
    checks: list[Finding] = []
    for name in rounds_of(question.stages):
        checks += _checkpoints(question, name)
        if name != TEACHER:
            checks += _search(question, name) + _pruning(question, name)
    for name in dict.fromkeys((TEACHER, question.parent_of(question.judged, f"gate@{question.judged}"), question.judged)):
        if evaluation_of(name) in question.stages:  # else judged by a version that did not look at the parent
            checks += _metrics(question, name)
    return checks + _verdict(question)


def _checkpoints(question: Question, name: str) -> list[Finding]:
    needs = question.needs(RoundPaths(Path(), name).training_stage, "outputs")
    sentence = "the model is its best checkpoint"
    return derived("checkpoints", name, needs, sentence, lambda: best_checkpoint(question.view, name))


def _search(question: Question, name: str) -> list[Finding]:
    stage = f"distill@{name}"
    if not question.receipts[stage]["params"]["rounds"][name].get("search"):
        return []
    needs = question.needs(stage, "outputs") | question.needs(f"prune@{name}", "outputs")
    # What trial and finish wrote; in runs of before these stages nothing lies there.
    folder = f"{RoundPaths(Path(), name).search.as_posix()}/"
    needs |= {path: place for path, place in question.needs(stage).items() if path.startswith(folder)}
    sentence = "the ranking follows from the curves, and the best is taken"
    return derived("search", name, needs, sentence, lambda: classification.searched(question.view, name))


def _pruning(question: Question, name: str) -> list[Finding]:
    needs, parent = question.needs(f"prune@{name}"), question.parent_of(name, f"prune@{name}")
    sentence = "follows bit for bit from its parent and its plan"
    return derived("pruning", name, needs, sentence, lambda: PRUNED[question.task](question.view, name, parent))


def _metrics(question: Question, name: str) -> list[Finding]:
    stage = evaluation_of(name)
    params, sentence = question.receipts[stage]["params"], "every number and interval follows from the predictions"
    needs = question.needs(stage)
    return derived("metrics", name, needs, sentence, lambda: MEASURED[question.task](question.view, params, name))


def _verdict(question: Question) -> list[Finding]:
    judge, sentence = f"gate@{question.judged}", "the gate gives the same verdict again"
    receipt = question.receipts[judge]
    return derived("verdict", judge, question.needs(judge), sentence, lambda: judged(question.view, receipt))
