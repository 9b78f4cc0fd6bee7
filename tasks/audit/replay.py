"""Runs the stages behind a model again, in a new worktree at their recorded commit and without any cache, and compares.

The worktree is made below the workspace's `.compactlm` and taken away at the end. The commit of each stage is checked out
with the difference its receipt keeps, so stages that ran from different commits are replayed from theirs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tasks.audit.code import Key, key_of
from tasks.audit.replayed import NAME, Context, compare_stage, environment, is_clocked, is_deterministic
from tasks.errors import StageError, UserError
from tasks.files import file_sha256, read_json
from tasks.git import switch, worktree
from tasks.lineage.chain import LOCK, RECEIPTS_FOLDER, Receipt, Receipts, files_of
from tasks.lineage.checks import Finding, failed, overall, unknown
from tasks.running.dvc import ANEW, StageRunner
from tasks.warm import warm_server

EVERY: Final = ("*",)
Tell = Callable[[str], None]
Places = Mapping[str, Path | None]


def chosen(stages: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the stages that a pattern such as `prune@*` matches, in their order; UserError for one that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(stage, pattern) for stage in stages):
            raise UserError(f"--stages {pattern!r}: no such stage behind this model; there are: {', '.join(stages)}")
    return [stage for stage in stages if any(fnmatchcase(stage, pattern) for pattern in patterns)]


def replay(
    workspace: Path, receipts: Receipts, stages: Sequence[str], places: Places, into: Path, say: Tell, tell: Tell
) -> tuple[list[Finding], dict[str, Any]]:
    """Return what differs when `stages` run again, and what it took; `places` has the recorded bytes.

    A stage reads what this replay made where it made it, else the recorded bytes. `say` gets lines that replace each
    other, `tell` one line a stage.
    """
    with worktree(workspace, into) as tree:
        (tree / ".dvc").mkdir(parents=True, exist_ok=True)
        own = (into / "cache").as_posix()
        (tree / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {own}\n", encoding="utf-8")
        with ExitStack() as stack:
            work = _Replay(workspace, receipts, stages, places, into, tree, stack)
            for number, stage in enumerate(stages, start=1):
                head = f"replay {number}/{len(stages)} {stage}"
                say(head)
                began = time.monotonic()
                checks = work.run(stage, lambda line, head=head: say(f"{head}: {line}"))  # type: ignore[misc]
                seconds = round(time.monotonic() - began, 2)
                work.rows.append(
                    {
                        "name": stage,
                        "result": overall(checks),
                        "seconds": seconds,
                        "recorded_seconds": receipts[stage]["compute_seconds"],
                    }
                )
                work.checks += checks
                tell(f"{head}: {overall(checks)} in {seconds:.1f} s: {checks[0].sentence}")
    return work.checks, {"stages": work.rows, "environment": sorted(work.environment)}


class _Replay:
    """A worktree in which stages run one after the other, each from its own commit."""

    def __init__(
        self,
        workspace: Path,
        receipts: Receipts,
        stages: Sequence[str],
        places: Places,
        top: Path,
        tree: Path,
        stack: ExitStack,
    ) -> None:
        self.workspace, self.receipts, self.places = workspace, receipts, places
        self.stages, self.top, self.tree, self._stack = stages, top, tree, stack
        self.checks: list[Finding] = []
        self.rows: list[dict[str, Any]] = []
        self.environment: set[str] = set()
        self._made: dict[str, str] = {}  # path -> sha256 of what this replay wrote
        self._tolerant = False
        self._state: Key | None = None
        self._runner: StageRunner

    def run(self, stage: str, say: Tell) -> list[Finding]:
        """Return what differs when one stage runs again."""
        receipt = self.receipts[stage]
        doubt = self._check_out(receipt) or self._bring_inputs(receipt)
        if doubt is not None:
            return [unknown(NAME, stage, doubt)]
        try:
            self._runner.run(stage, say)
        except UserError as error:
            return [unknown(NAME, stage, f"could not run here: {error}")]
        except StageError as error:
            return [failed(NAME, stage, "a stage that runs to its end", str(error), "it does not run again")]
        again = read_json(self.tree / RECEIPTS_FOLDER / f"{stage}.json")
        self._made |= {path: one["sha256"] for path, one in files_of(again, "outputs").items()}
        self._tolerant = self._tolerant or not is_deterministic(receipt, again)
        self.environment |= set(environment(receipt, again))
        others = [
            path
            for path, one in files_of(receipt, "inputs").items()
            if self._made.get(path, one["sha256"]) != one["sha256"] and not is_clocked(path)
        ]
        has_metrics = any(name.startswith("evaluate") for name in self.stages)
        context = Context(others[0] if others else None, self._tolerant, has_metrics)
        return compare_stage(receipt, again, self.tree, self.places, context)

    def _check_out(self, receipt: Receipt) -> str | None:
        """Bring the worktree to the code of a stage, and return why that cannot be done."""
        state = receipt["git"]
        if state["commit"] is None:
            return "it ran outside of Git, so its code is not kept"
        if state["dirty"] and state.get("diff") is None:
            return "its edits were too large to keep, so its code is not known"
        if key_of(receipt) == self._state:
            return None
        self._stack.close()  # the processes that have loaded the code of the stage before
        if not switch(self.top, state["commit"], state.get("diff")):
            return f"Git cannot give the files of commit {state['commit']}"
        self._state = key_of(receipt)
        env = self._stack.enter_context(warm_server(self.tree))
        self._runner = self._stack.enter_context(StageRunner(self.tree, env, ANEW))
        return None

    def _bring_inputs(self, receipt: Receipt) -> str | None:
        """Put the recorded bytes of what the stage reads where no stage of this replay has, and return what is missing."""
        for path, one in files_of(receipt, "inputs").items():
            place = self.tree / path
            if path in self._made:
                continue
            if path == LOCK:
                source = next(
                    (p for p in (place, self.workspace / LOCK) if p.is_file() and file_sha256(p) == one["sha256"]), None
                )
            else:
                source = self.places.get(path)
            if source is None:
                return f"needs {path}, whose recorded bytes are not here"
            if source != place:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
        return None
