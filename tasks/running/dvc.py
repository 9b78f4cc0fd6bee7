"""The one door to DVC: the graph, what is up to date, and running one stage.

Reading happens in this process (20 ms to 100 ms); whatever executes is a child process that ends when this one does.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from tasks import children, errors
from tasks.errors import ResourceError, StageError, UserError
from tasks.params.file import read_yaml
from tasks.progress import say

Outcome = Literal["executed", "restored", "skipped"]
os.environ["DVC_NO_ANALYTICS"] = "1"
LAST_LINES: Final = 30
# DVC ignores the interrupt while its command runs, so the command ends first and DVC still releases its locks.
STOP_SECONDS: Final = 10.0
BUSY: Final = ("Unable to acquire lock", "is busy", "has been locked")
SWEPT: Final = "Auto removed it from the lock file"  # what DVC says, stage by stage, after a run that was killed
NETWORK: Final = ("Connection reset", "Connection refused", "timed out", "Temporary failure in name resolution")
# DVC runs a stage by a person's shell, which may be none at all; and the code of a stage is that of the workspace.
PLAIN: Final = {"SHELL": "/bin/sh", "PYTHONSAFEPATH": ""}
UNKNOWN_RUN: Final = 3  # the exit code of a look for a run that is nowhere
# For `dvc repro`: take nothing from a cache, put nothing there.
ANEW: Final = ("--force", "--no-run-cache", "--no-commit")


class BusyError(StageError):
    """The stage did not run because of a lock or the network: trying again may help."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: its name, the stages it waits for, the files it reads and those it writes."""

    name: str
    upstream: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def read_graph(workspace: Path) -> list[Stage]:
    """Return the stages of dvc.yaml in topological order, ties in the order of the file."""
    with _open(workspace) as repo:
        return _graph(repo)


def pending(workspace: Path, stages: Iterable[Stage]) -> list[str]:
    """Return the names of the stages that are not up to date, and of those that wait for them, in the given order.

    A stage that waits may still turn out unchanged: its inputs may come out with the same bytes.
    """
    with _open(workspace) as repo:
        return _pending(repo, stages)


def read_state(workspace: Path) -> tuple[list[Stage], list[str]]:
    """Return what `read_graph` and `pending` say, at the price of one look."""
    with _open(workspace) as repo:
        stages = _graph(repo)
        return stages, _pending(repo, stages)


def _open(workspace: Path) -> Any:
    from dvc.dirs import site_cache_dir
    from dvc.repo import Repo

    for name in ("dvc", "dvc_data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # which is how its progress bars are turned off, too
    # Where it remembers digests of files, /var/tmp for most: without that, each look would end here.
    remembers = Path(site_cache_dir())
    if not os.access(next(path for path in (remembers, *remembers.parents) if path.exists()), os.W_OK):
        os.environ["DVC_SITE_CACHE_DIR"] = str(Path(tempfile.gettempdir(), f"compactlm-dvc-{os.getuid()}"))
    return Repo(str(workspace))


def _graph(repo: Any) -> list[Stage]:
    """Return the stages with their edges as DVC draws them; its own graph costs half a second more."""
    outs = [(out.fs_path, stage.name) for stage in _stages(repo) for out in stage.outs]

    def makers(dep: str) -> set[str]:
        return {name for out, name in outs if out == dep or out.startswith(f"{dep}/") or dep.startswith(f"{out}/")}

    stages = {
        # `name` and `def_path` are as written in dvc.yaml; other spellings depend on the current directory.
        stage.name: Stage(
            name=stage.name,
            upstream=tuple(sorted(set().union(*(makers(dep.fs_path) for dep in stage.deps)))),
            deps=tuple(sorted(dep.def_path for dep in stage.deps)),
            outs=tuple(sorted(out.def_path for out in stage.outs)),
        )
        for stage in _stages(repo)
    }
    return _in_order(stages)


def _stages(repo: Any) -> list[Any]:
    """Return the stages of dvc.yaml: what `dvc add` has put under DVC's care runs nothing, and has no name."""
    return [stage for stage in repo.index.stages if hasattr(stage, "name")]


def _pending(repo: Any, stages: Iterable[Stage]) -> list[str]:
    """Return the pending stages by what `dvc status` asks of each, without its locks: looking writes nothing.

    What several stages read is looked at once: DVC would list a folder of code, and parse params.yaml, for each of them.
    """
    looked: dict[tuple[str, ...], bool] = {}

    def differs(entry: Any) -> bool:
        place = (entry.fs_path, entry.IS_DEPENDENCY, repr(entry.hash_info.value), *getattr(entry, "params", ()))
        if place not in looked:
            looked[place] = bool(entry.status())
        return looked[place]

    def has_changed(stage: Any) -> bool:
        entries = [*(() if stage.frozen else stage.deps), *stage.outs]
        return bool(stage.changed_stage() or stage.always_changed or stage.is_callback or any(map(differs, entries)))

    with _read_once():
        changed = {stage.name for stage in _stages(repo) if has_changed(stage)}
    waiting: list[str] = []
    for known in stages:
        if known.name in changed or any(name in waiting for name in known.upstream):
            waiting.append(known.name)
    return waiting


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Have DVC parse a params file once for all stages that read it."""
    from dvc.dependency import param

    load = param.load_path
    param.load_path = functools.cache(load)
    try:
        yield
    finally:
        param.load_path = load


def _in_order(stages: Mapping[str, Stage]) -> list[Stage]:
    done: dict[str, Stage] = {}

    def visit(stage: Stage, after: tuple[str, ...]) -> None:
        if stage.name in after:
            raise UserError(f"dvc.yaml: these stages wait for each other: {', '.join(after)}; take a file out of one's `deps`")
        if stage.name not in done:
            for name in stage.upstream:
                visit(stages[name], (*after, stage.name))
            done[stage.name] = stage

    for stage in stages.values():
        visit(stage, ())
    return list(done.values())


def read_lock(workspace: Path) -> dict[str, Any]:
    """Return the content of dvc.lock, empty when there is none."""
    return dict(read_yaml(lock)) if (lock := workspace / "dvc.lock").exists() else {}


def cache_folder(workspace: Path) -> Path:
    """Return the folder of DVC's local cache, wherever the configuration puts it."""
    with _open(workspace) as repo:
        return Path(repo.cache.local.path).parents[1]


def share_cache(workspace: Path, cache: Path, home: Path) -> None:
    """Let a worktree use the cache of another workspace of this machine, and what is set there for this machine alone."""
    local = Path(".dvc") / "config.local"
    (workspace / ".dvc").mkdir(exist_ok=True)
    if (home / local).exists():
        shutil.copyfile(home / local, workspace / local)
    with _open(workspace) as repo, repo.config.edit("local") as settings:
        settings.setdefault("cache", {})["dir"] = str(cache)


def default_remote(workspace: Path) -> str | None:
    """Return the name of the remote that DVC pushes to, None without one."""
    with _open(workspace) as repo:
        name = repo.config["core"].get("remote")
        return str(name) if name else None


def push(workspace: Path, stages: Sequence[str] = (), runs: bool = True) -> str:
    """Bring the outputs of stages (default: all) to the remote, with what is known of `runs`; return why that did not go."""
    return _quietly(workspace, "push", *(["--run-cache"] if runs else []), *stages)


def pull(workspace: Path, stages: Sequence[str]) -> str:
    """Bring the outputs of stages here, by dvc.lock, from the cache and the remote; return why that did not go."""
    return _quietly(workspace, "pull", "--force", *stages)


def restore(workspace: Path, name: str) -> bool:
    """Return whether the remote or the cache knew a run of this very stage, whose outputs are in the workspace then.

    Whatever is asked: the same command, params and inputs, byte for byte. dvc.lock is left to `StageRunner`. ResourceError where
    the remote does not answer.
    """
    code, words = _told(workspace, [__name__, name])
    if code not in (0, UNKNOWN_RUN):
        raise ResourceError(f"{name}: the DVC remote: {words}")
    return code == 0


def _restore(name: str) -> int:
    """Do what `restore` says, in the current folder, which DVC takes paths from; return an exit code."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import RunCacheNotFoundError

    with _open(Path.cwd()) as repo:
        stage = next(each for each in _stages(repo) if each.name == name)
        try:
            with _locked(repo):
                repo.stage_cache.pull(None)
                repo.stage_cache.restore(stage, pull=True)
        except RunCacheNotFoundError:
            return UNKNOWN_RUN
        except (DvcException, OSError) as error:
            say(str(error))
            return 1
    return 0


@contextlib.contextmanager
def _locked(repo: Any) -> Iterator[None]:
    """Hold the lock of DVC, waiting for it as `--wait-for-lock` does."""
    from dvc.lock import LockError

    while True:
        try:
            repo.lock.lock()
        except LockError:
            time.sleep(0.2)
            continue
        break
    try:
        yield
    finally:
        repo.lock.unlock()


def bring(workspace: Path) -> str:
    """Bring the files of dvc.lock here, from the cache and a remote, as far as they have them; return what went wrong."""
    words = ("pull", "--run-cache") if default_remote(workspace) else ("checkout",)
    return _quietly(workspace, *words, "--force", "--allow-missing")


def _quietly(workspace: Path, *words: str) -> str:
    """Return the last line of what a command of DVC complains of, empty when it went well."""
    code, said = _told(workspace, ["dvc", "--wait-for-lock", *words, "--quiet"])  # stages run side by side
    return said if code else ""


def _told(workspace: Path, command: Sequence[str]) -> tuple[int, str]:
    """Return exit code and last line of a module that runs in the workspace; it ends when we end."""
    how: dict[str, Any] = {"cwd": workspace, "env": {**os.environ, "PATH": children.own_path(), **PLAIN}}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with children.running(command, STOP_SECONDS, **how, **pipes) as child:
        assert child.stderr is not None
        with child.stderr:  # `communicate` would close the pipe by which the child knows that we live
            lines = [line.strip() for line in child.stderr if line.strip()]
        code = child.wait()
    return code, (lines or [f"it ended with code {code}"])[-1]


def remote_addresses(workspace: Path) -> dict[str, str]:
    """Return name -> address of the remotes of DVC's configuration; an address may hold a password."""
    with _open(workspace) as repo:
        return {name: str(remote.get("url", "")) for name, remote in repo.config["remote"].items()}


def ask_remote(workspace: Path, name: str) -> str:
    """Return what a remote answers: `there`, `empty` where it has nothing yet, else why it cannot be read."""
    try:
        with _open(workspace) as repo:
            remote = repo.cloud.get_remote(name)
            remote.fs.info(remote.path)
    except FileNotFoundError:
        return "empty"
    except Exception as error:  # each kind of remote has a library of its own, with errors of its own
        if type(error).__module__ == "builtins" and not isinstance(error, OSError | ImportError):
            raise
        return next(iter(str(error).splitlines()), type(error).__name__)
    return "there"


def fetch_objects(workspace: Path, names: Iterable[str]) -> str:
    """Bring objects by their md5 from the DVC remote into the cache, those that it has; return why it could not be asked."""
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    with _open(workspace) as repo:
        known = [*repo.config["remote"]]
        try:
            if known:
                repo.cloud.pull([HashInfo("md5", name) for name in names], remote=known[0] if len(known) == 1 else None)
        except (DvcException, OSError) as error:
            return f"the DVC remote: {next(iter(str(error).splitlines()), type(error).__name__)}"
    return "" if known else "no DVC remote is configured"


def checkout(workspace: Path) -> list[str]:
    """Bring what dvc.lock and `.dvc` files name from the cache into the workspace; return that of which it lacks files."""
    from dvc.exceptions import CheckoutError

    with _open(workspace) as repo:
        locked = read_lock(workspace).get("stages", {})
        # As DVC calls them from where we are; that of a `.dvc` file has no name.
        named = [(getattr(stage, "name", None), stage.addressing) for stage in repo.index.stages]
        if stages := [address for name, address in named if name is None or name in locked]:
            try:
                repo.checkout(stages)
            except CheckoutError as error:
                return sorted(os.path.relpath(str(place), workspace) for place in error.target_infos)
    return []


def remove_objects(workspace: Path, names: Sequence[str], entries: Sequence[Path]) -> None:
    """Remove objects by their md5 from the cache, and entries of the run cache, while nothing else of DVC's is at work there."""
    with _open(workspace) as repo, repo.lock:
        for entry in entries:
            entry.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others of the same stage stay
                entry.parent.rmdir()
        # The listings of folders first: one whose files are gone would pass for a whole folder.
        for name in sorted(names, key=lambda name: (not name.endswith(".dir"), name)):
            with contextlib.suppress(FileNotFoundError):
                repo.cache.local.delete(name)


def stage_digests(workspace: Path) -> dict[str, str]:
    """Return the sha256 of each stage's entry in dvc.lock: its command, inputs, params and outputs."""
    entries = read_lock(workspace).get("stages", {})
    return {name: hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest() for name, entry in entries.items()}


class StageRunner:
    """Runs stages of one workspace as child processes; `stop` ends those that are running and refuses new ones.

    `options` are further words for `dvc repro`.
    """

    def __init__(self, workspace: Path, env: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        self.workspace, self._options = workspace, list(options)
        self._env = dict(env or {})
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, name: str, on_line: Callable[[str], None]) -> Outcome:
        """Bring one stage up to date and return how; each line it prints goes to `on_line`.

        Raises the UserError with which the stage refused, BusyError if trying again may help, else StageError.
        """
        with tempfile.TemporaryDirectory(prefix="compactlm-") as folder:
            error_file = Path(folder) / "error.json"
            with self._child(name, {**self._env, children.ERROR_FILE: str(error_file)}) as child:
                outcome, lines = _follow(name, child, on_line)
            if child.returncode == 0:
                return outcome
            if error_file.exists():
                raise _refusal(json.loads(error_file.read_text(encoding="utf-8")))
        raise _fault(name, child.returncode, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every running stage, kindly at first, and wait until it is gone."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for child in running:
            children.end(child, STOP_SECONDS)

    @contextlib.contextmanager
    def _child(self, name: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Run DVC for one stage, known to `stop` for the length of the `with`."""
        own = {"PATH": children.own_path(), children.STARTED: str(time.time()), "PYTHONUNBUFFERED": "1", **PLAIN}
        with self._lock:  # `stop` must see every child that was started
            if self._stopped:
                raise StageError(name, "not started, the run is being stopped")
            child = children.start(
                ["dvc", "--wait-for-lock", "repro", "--single-item", *self._options, name],
                STOP_SECONDS,
                cwd=self.workspace,
                env={**os.environ, **env, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            self._running.add(child)
        try:
            yield child
        finally:
            children.end(child, STOP_SECONDS)
            if child.stdout is not None:
                child.stdout.close()
            with self._lock:
                self._running.discard(child)


def _follow(name: str, child: subprocess.Popen[str], on_line: Callable[[str], None]) -> tuple[Outcome, list[str]]:
    """Return how the stage ended and its last lines, once the child has closed its output."""
    outcome: Outcome = "skipped"
    last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
    assert child.stdout is not None
    for raw in child.stdout:
        line = raw.rstrip()
        if not line or line.endswith((SWEPT, f"{SWEPT}.")):
            continue
        if line.startswith(f"Running stage '{name}'"):
            outcome = "executed"
        elif line.startswith(f"Stage '{name}' is cached"):
            outcome = "restored"
        last.append(line)
        on_line(line)
    child.wait()
    return outcome, list(last)


def _refusal(words: Mapping[str, Any]) -> UserError:
    """Return the stage's own error, of the same class and with the same words."""
    kind = getattr(errors, str(words["kind"]), UserError)
    return kind(words["message"]) if issubclass(kind, UserError) else UserError(words["message"])


def _fault(name: str, code: int, lines: list[str]) -> StageError:
    again = [line for line in lines if any(words in line for words in BUSY)]
    # A stage other than `fetch` opens no connection, so these words in its output are not about the network.
    if name == "fetch":
        again += [line for line in lines if any(words in line for words in NETWORK)]
    if again:
        return BusyError(name, again[-1])
    return StageError(name, f"ended with code {code}; its last lines:\n{textwrap.indent(chr(10).join(lines), '  ')}")


if __name__ == "__main__":
    sys.exit(_restore(sys.argv[1]))
