"""A run of a ref in a worktree of its own: the checkout of the person who scheduled it is never touched.

The branch `compactlm/runs/NAME` has the results: a commit with dvc.lock after each run that changed something. A run starts from
the end of that branch; where the ref has gone on, from a new commit after both: the ref's files, with the locks and decisions of
the former result unless the ref itself has newer ones. So whatever a receipt names can be reached from a branch, and nothing that
is up to date runs again.
"""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NotRequired, TypedDict

from tasks.errors import ParamsError, ResourceError, SourceError, UserError
from tasks.files import file_sha256, read_json, write_json
from tasks.git import branch_at, commit_of, differs, git, join, leads_to, move_branch, path_of, push_branch, remotes
from tasks.params.file import load_params
from tasks.running.dvc import bring, default_remote, push
from tasks.running.worktrees import worktree_at

BELOW: Final = Path(".compactlm") / "scheduled"
PREFIX: Final = "compactlm/runs/"  # of the branches with results
RESULTS: Final = ("dvc.lock", "sources.lock", "decisions.jsonl")  # what a run leaves for Git to keep
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*")
Outcome = Literal["no change", "completed", "nothing passed", "not recorded"]
DONE: Final = ("no change", "completed", "nothing passed")  # after which the same commit and data need no run


console = logging.getLogger("compactlm")


class Kept(TypedDict):
    """What the last run of a schedule left: where it started and ended, and how."""

    ref: str
    commit: str
    head: str
    outcome: Outcome
    lock_sha256: str | None
    ended_at: str
    unpushed: NotRequired[str]


@dataclass(frozen=True)
class Schedule:
    """A ref of the repository of `home` that is run again and again, under a name."""

    home: Path
    name: str
    ref: str

    @property
    def branch(self) -> str:
        """The branch with its results."""
        return PREFIX + self.name

    @property
    def tree(self) -> Path:
        """Its worktree."""
        return self.home / BELOW / self.name

    @property
    def place(self) -> Path:
        """Where the project is in its worktree."""
        return self.tree / path_of(self.home, "--show-prefix")

    @property
    def remote(self) -> str | None:
        """The Git remote that the ref is of, None for one of this repository alone."""
        first, separator, _ = self.ref.partition("/")
        return first if separator and first in remotes(self.home) else None

    @property
    def record(self) -> Path:
        """The file that says what its last run left."""
        return self.home / BELOW / f"{self.name}.json"

    def last(self) -> Kept | None:
        """Return what its last run left, None before the first."""
        return read_json(self.record) if self.record.exists() else None


@dataclass(frozen=True)
class Start:
    """Where a run starts: the commit of the ref, the end of the branch (empty: none yet), and the commit to check out."""

    commit: str
    tip: str
    base: str


def checked_schedule(home: Path, ref: str, name: str | None) -> Schedule:
    """Return the schedule of a ref; ParamsError where its name or ref cannot be used, UserError where no remote answers."""
    if path_of(home, "--show-toplevel") == "":
        raise ParamsError(f"--ref {ref}: {home} is in no Git repository")
    named = name if name is not None else re.sub(r"[^A-Za-z0-9._-]+", "-", ref).strip("-.")
    if not NAME.fullmatch(named) or named.endswith((".lock", ".")):
        raise ParamsError(f"--name {named!r}: write letters, digits, '-', '_' and single dots, such as nightly")
    made = Schedule(home, named, ref)
    find_start(made)
    return made


def find_start(schedule: Schedule) -> Start:
    """Return where a run of now starts, with what a remote has fetched; UserError where that cannot be found out."""
    home, remote = schedule.home, schedule.remote
    tip = commit_of(home, f"refs/heads/{schedule.branch}")
    if remote is None:
        commit = commit_of(home, schedule.ref)
    else:
        try:
            commit = branch_at(home, remote, schedule.ref.partition("/")[2])
            theirs = branch_at(home, remote, schedule.branch)
        except OSError as error:
            raise ResourceError(f"--ref {schedule.ref}: {remote} cannot be reached: {error}") from None
        tip = _newer(schedule, tip, theirs)
    if not commit:
        where = f"{remote} has no such branch" if remote else "there is no such branch, tag or commit here"
        raise ParamsError(f"--ref {schedule.ref}: {where}; write a branch of a remote such as origin/main, or one of this clone")
    return Start(commit, tip, _base(schedule, commit, tip))


def _newer(schedule: Schedule, mine: str, theirs: str) -> str:
    """Return the later end of the branch; UserError where two clones have gone on from one result."""
    if not theirs or not mine or mine == theirs:
        return mine or theirs
    for later, earlier in ((theirs, mine), (mine, theirs)):
        if leads_to(schedule.home, later, earlier):
            return later
    raise UserError(
        f"{schedule.branch}: {schedule.remote} has results that this clone has not, and the other way round: two clones run this "
        f"schedule. Give one of them another --name, or take theirs: git branch --force {schedule.branch} {theirs}"
    )


def _base(schedule: Schedule, commit: str, tip: str) -> str:
    home = schedule.home
    if not tip or leads_to(home, commit, tip):
        return commit
    if leads_to(home, tip, commit):
        return tip
    parted = git(home, "merge-base", tip, commit).stdout.decode().strip()
    kept = [path for path in RESULTS if parted and not differs(home, parted, commit, path)]
    return join(home, commit, tip, kept, f"{schedule.name}: {schedule.ref} has gone on to {commit[:12]}")


def is_unchanged(schedule: Schedule, start: Start) -> bool:
    """Return whether the last run started from this commit and the same data, and left nothing to be done or delivered."""
    last, place = schedule.last(), schedule.place
    if last is None or last["outcome"] not in DONE or last.get("unpushed") or last["head"] != start.base:
        return False
    lock = place / "dvc.lock"
    if commit_of(schedule.tree, "HEAD") != start.base or not lock.exists() or file_sha256(lock) != last["lock_sha256"]:
        return False
    from tasks.data.sources import is_locked

    try:
        return is_locked(load_params(place / "params.yaml").sources(), place / "sources.lock")
    except (ParamsError, SourceError):  # which the run itself says better, by its own code
        return False


def check_out(schedule: Schedule, base: str) -> Path:
    """Return where the project is, in the worktree of the schedule with the files of a commit and the cache of home.

    UserError where Git makes no worktree, or the commit wants another environment than this one.
    """
    place = worktree_at(schedule.home, schedule.tree, base, schedule.ref)
    if trouble := bring(place):
        console.warning("DVC: %s; what could not be brought here is made again", trouble)
    return place


def keep(schedule: Schedule, start: Start, outcome: Outcome, ended_at: str) -> Kept:
    """Return and write what a run has left, after its result is the end of the branch, here and at the remote.

    A result that cannot be pushed is kept; the next run tries again.
    """
    home, head = schedule.home, commit_of(schedule.tree, "HEAD")
    old = commit_of(home, f"refs/heads/{schedule.branch}")
    if old != head and not move_branch(home, schedule.branch, head, old):
        raise UserError(f"{schedule.branch}: Git does not move this branch to {head[:12]}; see whether something else holds it")
    lock = schedule.place / "dvc.lock"
    kept: Kept = {
        "ref": schedule.ref,
        "commit": start.commit,
        "head": head,
        "outcome": outcome,
        "lock_sha256": file_sha256(lock) if lock.exists() else None,
        "ended_at": ended_at,
    }
    if trouble := deliver(schedule):
        kept["unpushed"] = trouble
    write_json(schedule.record, kept)
    return kept


def deliver(schedule: Schedule) -> str:
    """Bring the files of the result to the DVC remote, then the branch to Git's; return why that did not go."""
    if default_remote(schedule.place) and (trouble := push(schedule.place)):
        return f"the DVC remote: {trouble}"
    if schedule.remote is None:
        return ""
    refused = push_branch(schedule.home, schedule.remote, schedule.branch)
    return f"{schedule.remote}: {refused}" if refused else ""


@contextmanager
def only_tick(schedule: Schedule) -> Iterator[None]:
    """Hold a schedule for one tick; ResourceError while another one works on it."""
    place = schedule.home / BELOW / f"{schedule.name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"{schedule.name}: an earlier run of this schedule is under way") from None
        yield
