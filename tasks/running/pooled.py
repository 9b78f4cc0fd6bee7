"""A stage on another machine: what is handed over is a commit and dvc.lock, what comes back is in DVC's run cache.

No disk is shared and no lock file merged. Whoever runs a stage has a clone of the project and its DVC remote, and neither
MLflow's address nor a key to promote with: metrics travel in files.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tasks.errors import ResourceError, UserError
from tasks.git import commit_of, drop_at, edits, fetch_objects, first_commit, has_commit, push_commit, remotes
from tasks.params.base import Runtime
from tasks.running.dvc import Outcome, Stage, StageRunner, default_remote, pull, push, read_graph, restore
from tasks.running.servers import PREFECT
from tasks.running.worktrees import worktree_at

HOME: Final = "COMPACTLM_WORKER_HOME"  # names a worker's own clone
BELOW: Final = Path(".compactlm") / "worker"
REFS: Final = "refs/compactlm/offered"  # at the Git remote: commits that workers are given, for as long as a run lasts
SLOTS: Final = 64
GENERATED: Final = ("dvc.lock", "decisions.jsonl")  # which a run writes, and hands over itself


def pool_faults(workspace: Path, runtime: Runtime, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each thing that a run with pools lacks; none without pools."""
    if not runtime.pools:
        return []
    key, found = "runtime.pools", []
    if not environ.get(PREFECT):
        found.append(f"{key}: workers and this run meet at a Prefect server: set {PREFECT}, or write `pools: null`")
    if git_remote(workspace) is None:
        found.append(
            f"{key}: workers get code and params from a Git remote, and there is none called origin; `git remote add origin URL`"
        )
    elif not commit_of(workspace, "HEAD"):
        found.append(f"{key}: workers get code and params from a commit, and there is none; `git commit`")
    if default_remote(workspace) is None:
        found.append(
            f"{key}: files go to workers and back by a DVC remote, and there is none: `dvc remote add --default team ADDRESS`"
        )
    return found


def git_remote(workspace: Path) -> str | None:
    """Return the remote over which clones of the project meet: origin, or the only one."""
    names = remotes(workspace)
    return "origin" if "origin" in names else names[0] if len(names) == 1 else None


def queue_of(workspace: Path) -> str:
    """Return the work queue of a project: the same in all its clones, and no other project's."""
    return f"compactlm-{first_commit(workspace)[:12]}"


class Offer:
    """The commit of a run, at the Git remote for as long as stages are handed over."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.remote = workspace, git_remote(workspace)
        self._offered = ""

    def commit(self) -> str:
        """Return the commit, once it can be fetched; UserError where files differ from it, or the remote does not take it."""
        if edits(self.workspace, GENERATED):
            raise UserError(
                f"{self.workspace}: edited files would not be seen by a worker, which has code and params from a commit; "
                "`git commit` them, or `compactlm run --commit` for params.yaml and sources.lock"
            )
        commit = commit_of(self.workspace, "HEAD")
        if commit != self._offered:
            assert self.remote is not None, "pool_faults was asked before"
            if refused := push_commit(self.workspace, self.remote, commit, f"{REFS}/{commit}"):
                raise ResourceError(f"runtime.pools: {self.remote} does not take the commit for workers: {refused}")
            self._offered = commit
        return commit

    def close(self) -> None:
        """Take the commit away from the remote: branches keep what is to be kept."""
        if self._offered and self.remote is not None:
            drop_at(self.workspace, self.remote, f"{REFS}/{self._offered}")


def lock_text(workspace: Path) -> str:
    """Return dvc.lock, empty before the first stage."""
    return path.read_text(encoding="utf-8") if (path := workspace / "dvc.lock").exists() else ""


def hand_over(workspace: Path, stage: Stage) -> None:
    """Bring what a stage reads to the DVC remote; ResourceError where that does not go."""
    if trouble := push(workspace, stage.upstream, runs=False):
        raise ResourceError(f"{stage.name}: what it reads does not get to the DVC remote: {trouble}")


def run_handed_over(home: Path, name: str, commit: str, lock: str, on_line: Callable[[str], None]) -> Outcome:
    """Return how a stage of a commit came about here, once its outputs are at the DVC remote.

    `home`: this machine's clone. Raises what `StageRunner.run` raises, and UserError where commit or files cannot be had.
    """
    with _slot(home) as tree:
        _fetch(home, commit)
        place = worktree_at(home, tree, commit, name)
        (place / "dvc.lock").write_text(lock, encoding="utf-8")
        _bring(place, name)
        with StageRunner(place) as runner:
            outcome = runner.run(name, on_line)
        if trouble := push(place, [name]):
            raise ResourceError(f"{name} is done, and its files do not get to the DVC remote: {trouble}")
    return outcome


def _bring(place: Path, name: str) -> None:
    """Bring what a stage reads; and what it writes, where equal work was done anywhere."""
    stage = next((stage for stage in read_graph(place) if stage.name == name), None)
    if stage is None:
        raise UserError(f"dvc.yaml of this commit has no stage {name}")
    if stage.upstream and (trouble := pull(place, stage.upstream)):  # `dvc repro --pull` asks for folders that no stage names
        raise ResourceError(f"{name}: what it reads cannot be had from the DVC remote: {trouble}")
    restore(place, name)


def _fetch(home: Path, commit: str) -> None:
    if has_commit(home, commit):
        return
    remote = git_remote(home)
    if remote is None:
        raise ResourceError(f"{home}: no Git remote called origin, from which the commit of a run could be fetched")
    try:
        fetch_objects(home, remote, [f"{REFS}/{commit}"])
    except OSError as error:
        raise ResourceError(f"{home}: {commit[:12]} cannot be fetched from {remote}: {error}") from None


@contextmanager
def _slot(home: Path) -> Iterator[Path]:
    """Give a worktree's folder that no other stage of this machine uses now."""
    (home / BELOW).mkdir(parents=True, exist_ok=True)
    for number in range(SLOTS):
        with (home / BELOW / f"{number}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield home / BELOW / str(number)
            return
    raise ResourceError(f"{home}: {SLOTS} stages run here already")
