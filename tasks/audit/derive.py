"""All that an audit derives again from stored files, where it can in a process of its own: its libraries take seconds to import.

Meanwhile the audit itself reads MLflow and Git; a machine with two cores does both in the time of the longer one.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tasks.audit import causal_lm, classification, rederive
from tasks.errors import StageError
from tasks.lineage.chain import Receipts, files_of, rounds_of
from tasks.lineage.checks import Finding
from tasks.params.base import CAUSAL_LM

Places = Mapping[str, Path | None]
Start = Callable[[Receipts, Sequence[str], str, Places, Path], Callable[[], list[Finding]]]


@contextmanager
def deriver() -> Iterator[Start]:
    """Yield what starts `derive` and returns what waits for its checks; a process that has torch already needs no other one.

    Raises StageError, while waiting, when the other process ended without an answer.
    """
    if "torch" in sys.modules:
        yield lambda *asked: partial(derive, *asked)
        return
    context = get_context("spawn")  # a fork would copy the locks of threads that it does not copy
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()

    def start(*asked: object) -> Callable[[], list[Finding]]:
        ours.send(asked)
        return answer

    def answer() -> list[Finding]:
        try:
            return list(ours.recv())
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


def derive(receipts: Receipts, stages: Sequence[str], judged: str, places: Places, view: Path) -> list[Finding]:
    """Return whether weights, numbers and the verdict about the round `judged` follow from the files of the view."""
    checks: list[Finding] = []
    judge = f"gate@{judged}"
    for name in rounds_of(stages):
        checks += _checkpoints(receipts, name, places, view)
        if name != "teacher":
            checks += _search(receipts, name, places, view)
            checks += _pruning(receipts, name, places, view, _causal(receipts, judge))
    parent = receipts[judge]["params"]["rounds"][judged]["parent"]
    for who in dict.fromkeys(("teacher", parent, judged)):
        stage = "evaluate_teacher" if who == "teacher" else f"evaluate@{who}"
        if stage in stages:  # else judged by a version that did not look at the parent
            checks += _metrics(receipts, stage, who, places, view, _causal(receipts, judge))
    needs = _needs(receipts, judge, places)
    return checks + rederive.derived(
        "verdict", judge, needs, "the gate gives the same verdict again", lambda: rederive.judged(view, receipts[judge])
    )


def _causal(receipts: Receipts, judge: str) -> bool:
    return bool(receipts[judge]["params"].get("task") == CAUSAL_LM)


def _checkpoints(receipts: Receipts, name: str, places: Places, view: Path) -> list[Finding]:
    training = "teacher" if name == "teacher" else f"distill@{name}"
    needs = _needs(receipts, training, places, ("outputs",))
    return rederive.derived(
        "checkpoints", name, needs, "the model is its best checkpoint", lambda: rederive.best_checkpoint(view, name)
    )


def _search(receipts: Receipts, name: str, places: Places, view: Path) -> list[Finding]:
    stage = f"distill@{name}"
    if not receipts[stage]["params"]["rounds"][name].get("search"):
        return []
    needs = {**_needs(receipts, stage, places, ("outputs",)), **_needs(receipts, f"prune@{name}", places, ("outputs",))}
    # What trial and finish wrote; in runs of before these stages nothing lies there.
    folder = f"artifacts/rounds/{name}/search/"
    needs |= {path: place for path, place in _needs(receipts, stage, places).items() if path.startswith(folder)}
    return rederive.derived(
        "search",
        name,
        needs,
        "the ranking follows from the curves, and the best is taken",
        lambda: classification.searched(view, name),
    )


def _pruning(receipts: Receipts, name: str, places: Places, view: Path, causal: bool) -> list[Finding]:
    stage = f"prune@{name}"
    parent = receipts[stage]["params"]["rounds"][name]["parent"]
    pruned = causal_lm.pruned if causal else classification.pruned
    return rederive.derived(
        "pruning",
        name,
        _needs(receipts, stage, places),
        "follows bit for bit from its parent and its plan",
        lambda: pruned(view, name, parent),
    )


def _metrics(receipts: Receipts, stage: str, who: str, places: Places, view: Path, causal: bool) -> list[Finding]:
    params, place = receipts[stage]["params"], f"artifacts/rounds/{who}/evaluated"
    measured = causal_lm.measured if causal else classification.measured
    return rederive.derived(
        "metrics",
        who,
        _needs(receipts, stage, places),
        "every number and interval follows from the predictions",
        lambda: measured(view, params, place, who),
    )


def _needs(receipts: Receipts, stage: str, places: Places, roles: Sequence[str] = ("inputs", "outputs")) -> Places:
    return {path: places[path] for role in roles for path in files_of(receipts[stage], role) if path in places}
