"""Runs the stages behind a model again, in a new worktree at their recorded commit and without any cache, and compares.

The worktree is made below the workspace's `.compactlm` and taken away at the end. The commit of each stage is checked out
with the difference its receipt keeps, so stages that ran from different commits are replayed from theirs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from tasks.artifacts import receipt_path
from tasks.audit.code import Key, key_of
from tasks.audit.evidence import Evidence
from tasks.audit.replayed import NAME, Context, compare_stage, environment, is_clocked, is_deterministic
from tasks.errors import StageError, UserError
from tasks.files import file_sha256, read_json
from tasks.git import switch, worktree
from tasks.lineage.chain import LOCK, Receipt, edits_lost, files_of
from tasks.lineage.checks import Finding, failed, overall, unknown
from tasks.running.dvc import ANEW, StageRunner
from tasks.warm import warm_server

Tell = Callable[[str], None]


def chosen(stages: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the stages that a pattern such as `prune@*` matches, in their order; UserError for one that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(stage, pattern) for stage in stages):
            raise UserError(f"--stages {pattern!r}: no such stage behind this model; there are: {', '.join(stages)}")
    return [stage for stage in stages if any(fnmatchcase(stage, pattern) for pattern in patterns)]


def replay(evidence: Evidence, stages: Sequence[str], into: Path, say: Tell, tell: Tell) -> tuple[list[Finding], dict[str, Any]]:
    """Return what differs when `stages` run again, and what it took.

    A stage reads what this replay made where it made it, else the recorded bytes. `say` gets lines that replace each
    other, `tell` one line a stage.
    """
    checks: list[Finding] = []
    rows: list[dict[str, Any]] = []
    with worktree(evidence.workspace, into) as tree, ExitStack() as stack:
        (tree / ".dvc").mkdir(parents=True, exist_ok=True)
        cache = (into / "cache").as_posix()
        (tree / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
        work = _Replay(evidence, stages, into, tree, stack)
        for number, stage in enumerate(stages, start=1):
            head = f"replay {number}/{len(stages)} {stage}"
            say(head)
            began = time.monotonic()
            findings = work.run(stage, partial(_say_below, say, head))
            seconds = round(time.monotonic() - began, 2)
            recorded = evidence.receipts[stage]["compute_seconds"]
            row = {"name": stage, "result": overall(findings), "seconds": seconds, "recorded_seconds": recorded}
            rows.append(row)
            checks += findings
            tell(f"{head}: {row['result']} in {seconds:.1f} s: {findings[0].sentence}")
    return checks, {"stages": rows, "environment": sorted(work.environment)}


def _say_below(say: Tell, head: str, line: str) -> None:
    say(f"{head}: {line}")


@dataclass
class _Replay:
    """A worktree in which stages run one after the other, each from its own commit."""

    evidence: Evidence
    stages: Sequence[str]  # those to replay
    top: Path  # of the worktree
    tree: Path  # where the project is in it
    stack: ExitStack  # of the processes that have loaded the code of a stage
    environment: set[str] = field(default_factory=set)  # what was another one than when the stages ran
    made: dict[str, str] = field(default_factory=dict)  # path -> sha256 of what this replay wrote
    tolerant: bool = False
    state: Key | None = None
    runner: StageRunner = field(init=False)

    def run(self, stage: str, say: Tell) -> list[Finding]:
        """Return what differs when one stage runs again."""
        receipt = self.evidence.receipts[stage]
        doubt = self._check_out(receipt) or self._bring_inputs(receipt)
        if doubt is not None:
            return [unknown(NAME, stage, doubt)]
        try:
            self.runner.run(stage, say)
        except UserError as error:
            return [unknown(NAME, stage, f"could not run here: {error}")]
        except StageError as error:
            return [failed(NAME, stage, "a stage that runs to its end", str(error), "it does not run again")]
        again: Receipt = read_json(self.tree / receipt_path(stage))
        self.made |= {path: file["sha256"] for path, file in files_of(again, "outputs").items()}
        self.tolerant = self.tolerant or not is_deterministic(receipt, again)
        self.environment |= set(environment(receipt, again))
        read = {path: file["sha256"] for path, file in files_of(receipt, "inputs").items()}
        others = (path for path, sha256 in read.items() if self.made.get(path, sha256) != sha256 and not is_clocked(path))
        has_metrics = any(name.startswith("evaluate") for name in self.stages)
        context = Context(next(others, None), self.tolerant, has_metrics)
        return compare_stage(receipt, again, self.tree, self.evidence.places, context)

    def _check_out(self, receipt: Receipt) -> str | None:
        """Bring the worktree to the code of a stage, and return why that cannot be done."""
        state = receipt["git"]
        if state["commit"] is None:
            return "it ran outside of Git, so its code is not kept"
        if edits_lost(state):
            return "its edits were too large to keep, so its code is not known"
        if key_of(receipt) == self.state:
            return None
        self.stack.close()
        if not switch(self.top, state["commit"], state.get("diff")):
            return f"Git cannot give the files of commit {state['commit']}"
        self.state = key_of(receipt)
        env = self.stack.enter_context(warm_server(self.tree))
        self.runner = self.stack.enter_context(StageRunner(self.tree, env, ANEW))
        return None

    def _bring_inputs(self, receipt: Receipt) -> str | None:
        """Put the recorded bytes of what the stage reads where no stage of this replay has, and return what is missing."""
        for path, file in files_of(receipt, "inputs").items():
            place = self.tree / path
            if path in self.made:
                continue
            source = self.evidence.places.get(path)
            if path == LOCK:
                copies = [copy for copy in (place, self.evidence.workspace / LOCK) if copy.is_file()]
                source = next((copy for copy in copies if file_sha256(copy) == file["sha256"]), None)
            if source is None:
                return f"needs {path}, whose recorded bytes are not here"
            if source != place:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
        return None
