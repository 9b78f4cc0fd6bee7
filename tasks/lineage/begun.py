"""What a stage began with, and whether it is still there when the stage ends.

DVC takes the digests of code, params and files after a stage, and keeps its outputs under them. Had one changed meanwhile, the
outputs would pass for the work of code that did not run, today and whenever DVC takes them from its cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import RECEIPTS, GitState
from tasks.entry import Entry, entry_of
from tasks.errors import UserError
from tasks.lineage.loaded import MAIN, Code, changed, code_on_disk, listed, loaded_files
from tasks.lineage.receipts import git_state
from tasks.params.base import Params
from tasks.params.file import load_params
from tasks.params.listed import listed_params

Stamps = dict[Path, tuple[int, int]]  # of files: size in bytes, time of the last change in nanoseconds


@dataclass(frozen=True)
class Begun:
    """What a stage reads: its params, the code on disk and what of it was loaded, the state of Git, its files."""

    stage: str
    entry: Entry | None
    params: Params  # whole; `seen` has those that the stage may read
    params_file: Path
    git: GitState
    stamps: Stamps  # of the files that it reads
    code: Code
    loaded: frozenset[str]

    @property
    def seen(self) -> Params:
        """Return the params that dvc.yaml lists for the stage, all of them where it does not know the stage."""
        return _seen(self.params, self.entry)

    def loaded_code(self) -> dict[str, str]:
        """Return path -> sha256 of the code that ran, as it was when it was loaded."""
        return {path: self.code[path] for path in sorted({*loaded_files(), MAIN}) if path in self.code}

    def refuse_changes(self) -> None:
        """Raise UserError if what the stage read, or DVC lists as its code, has changed since it began.

        Code that was loaded before that and that DVC does not list may change: it is known by what was loaded.
        """
        wanted = (set(loaded_files()) - self.loaded) | set(self.entry.code if self.entry else ())
        names = changed(self.code, code_on_disk(), wanted)
        names += sorted(str(path) for path, stamp in self.stamps.items() if _stamp(path) != stamp)
        names += [] if self._same_params() else [str(self.params_file)]
        if names:
            raise UserError(
                f"{self.stage}: changed while it ran: {listed(names)}. What it made would pass for the work of what is there "
                "now, so it is not kept; leave the files alone, and run again"
            )

    def _same_params(self) -> bool:
        try:
            return _seen(load_params(self.params_file), self.entry) == self.seen
        except UserError:
            return False


def begin(stage: str, params_file: Path, inputs: Sequence[Path], since: Code) -> Begun:
    """Return what a stage begins with; UserError for params that are wrong, or where a file changes in this very moment.

    `since`: the code on disk when the process began to load it.
    """
    code = code_on_disk()
    text = params_file.read_bytes() if params_file.is_file() else b""
    params = load_params(params_file)
    begun = Begun(
        stage=stage,
        entry=entry_of(stage),
        params=params,
        params_file=params_file,
        git=git_state(Path.cwd()),
        stamps=_stamps(inputs),
        code=code,
        loaded=frozenset(loaded_files()),
    )
    # Git was asked a moment later: it must have seen the same bytes.
    names = sorted({*changed(since, code, begun.loaded), *changed(code, code_on_disk(), code)})
    names += [] if not text or params_file.read_bytes() == text else [str(params_file)]
    if names:
        raise UserError(f"{stage}: changed while it started: {listed(names)}; run again")
    return begun


def _seen(params: Params, entry: Entry | None) -> Params:
    return params if entry is None else listed_params(params, entry)


def _stamps(paths: Iterable[Path]) -> Stamps:
    """Return the stamps of all files there; receipts grow while stages run, and are read for the pages alone."""
    read = [path for path in paths if path != Path(RECEIPTS)]
    files = (file for path in read for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file())
    return {file: stamp for file in files if (stamp := _stamp(file)) is not None}


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return (facts.st_size, facts.st_mtime_ns)
