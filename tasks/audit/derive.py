"""All that an audit derives again from stored files, where it can in a process of its own: its libraries take seconds to import.

Meanwhile the audit itself reads MLflow and Git; a machine with two cores does both in the time of the longer one.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tasks.artifacts import TEACHER, RoundPaths
from tasks.audit import causal_lm, classification, rederive
from tasks.audit.evidence import Evidence
from tasks.audit.rederive import derived
from tasks.errors import StageError
from tasks.lineage.chain import evaluation_of, rounds_of
from tasks.lineage.checks import Finding
from tasks.params.base import CAUSAL_LM, CLASSIFICATION

PRUNED: Final = {CLASSIFICATION: classification.pruned, CAUSAL_LM: causal_lm.pruned}
MEASURED: Final = {CLASSIFICATION: classification.measured, CAUSAL_LM: causal_lm.measured}


Start = Callable[[Evidence, Path], Callable[[], list[Finding]]]


@contextmanager
def deriver() -> Iterator[Start]:
    """Yield what starts `derive` and returns what waits for its checks; a process that has torch already needs no other one.

    Raises StageError, while waiting, when the other process ended without an answer.
    """
    if "torch" in sys.modules:
        yield lambda evidence, view: partial(derive, evidence, view)
        return
    context = get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    own_end, other_end = context.Pipe()
    process = context.Process(target=_serve, args=(other_end,), daemon=True)
    process.start()
    other_end.close()

    def start(evidence: Evidence, view: Path) -> Callable[[], list[Finding]]:
        own_end.send((evidence, view))
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
    asker.send(derive(*asker.recv()))


def _import() -> None:
    from tasks.models.checkpoint import preload

    preload()


def derive(evidence: Evidence, view: Path) -> list[Finding]:
    """Return whether weights, numbers and the verdict follow from the files of a view, as `rederive.make_view` makes it."""
    receipt = evidence.receipts[evidence.judged]
    judged, task = evidence.judged.removeprefix("gate@"), receipt["params"].get("task", CLASSIFICATION)
    checks: list[Finding] = []
    for name in rounds_of(evidence.stages):
        checks += _checkpoints(evidence, view, name)
        if name != TEACHER:
            checks += _search(evidence, view, name) + _pruning(evidence, view, name, task)
    for name in dict.fromkeys((TEACHER, receipt["params"]["rounds"][judged]["parent"], judged)):
        if evaluation_of(name) in evidence.stages:  # else judged by a version that did not look at the parent
            checks += _metrics(evidence, view, name, task)
    needs, sentence = evidence.needs(evidence.judged), "the gate gives the same verdict again"
    return checks + derived("verdict", evidence.judged, needs, sentence, lambda: rederive.judged(view, receipt))


def _checkpoints(evidence: Evidence, view: Path, name: str) -> list[Finding]:
    needs = evidence.needs(RoundPaths(view, name).training_stage, "outputs")
    sentence = "the model is its best checkpoint"
    return derived("checkpoints", name, needs, sentence, lambda: rederive.best_checkpoint(view, name))


def _search(evidence: Evidence, view: Path, name: str) -> list[Finding]:
    stage = f"distill@{name}"
    if not evidence.receipts[stage]["params"]["rounds"][name].get("search"):
        return []
    needs = evidence.needs(stage, "outputs") | evidence.needs(f"prune@{name}", "outputs")
    # What trial and finish wrote; in runs of before these stages nothing lies there.
    folder = f"{RoundPaths(Path(), name).search.as_posix()}/"
    needs |= {path: place for path, place in evidence.needs(stage).items() if path.startswith(folder)}
    sentence = "the ranking follows from the curves, and the best is taken"
    return derived("search", name, needs, sentence, lambda: classification.searched(view, name))


def _pruning(evidence: Evidence, view: Path, name: str, task: str) -> list[Finding]:
    stage, sentence = f"prune@{name}", "follows bit for bit from its parent and its plan"
    parent = evidence.receipts[stage]["params"]["rounds"][name]["parent"]
    return derived("pruning", name, evidence.needs(stage), sentence, lambda: PRUNED[task](view, name, parent))


def _metrics(evidence: Evidence, view: Path, name: str, task: str) -> list[Finding]:
    stage, sentence = evaluation_of(name), "every number and interval follows from the predictions"
    params = evidence.receipts[stage]["params"]
    return derived("metrics", name, evidence.needs(stage), sentence, lambda: MEASURED[task](view, params, name))
