"""What an audit judges, read once: the receipts of one lineage as recorded, and what workspace and cache have of it now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import RECEIPTS, Digest, receipt_path
from tasks.files import file_sha256
from tasks.lineage.chain import Receipt, Receipts, Role, ancestors, files_of, parse, written
from tasks.running.dvc import cache_folder
from tasks.running.objects import md5, object_path

HASHING_THREADS: Final = 4  # hashing lets go of the interpreter's lock; more do not read a disk faster
Places = Mapping[str, Path | None]  # path of each output -> a place that has its very bytes, None where there is none


@dataclass(frozen=True)
class Evidence:
    """One lineage: what was recorded with its run, and what the workspace has of the same stages."""

    workspace: Path
    cache: Path  # DVC's
    recorded: Mapping[str, bytes]  # stage -> its receipt as it was recorded with the run
    receipts: Receipts  # the same, parsed
    stages: Sequence[str]  # those behind the model, in the order in which they can run
    here: Mapping[str, bytes]  # stage -> its receipt in the workspace
    lock: Mapping[str, Any]  # dvc.lock; empty when it cannot be read
    digests: Mapping[Path, str | None]  # sha256 of each place where an output may be; None where there is no file
    places: Places

    @property
    def behind(self) -> list[tuple[str, Receipt]]:
        """Return (stage, receipt) of the stages behind the model."""
        return [(stage, self.receipts[stage]) for stage in self.stages]

    @property
    def judged(self) -> str:
        """Return the stage that judged the model, which is the last one."""
        return self.stages[-1]

    @property
    def current(self) -> list[str]:
        """Return the stages of which the workspace still holds this very execution, by its receipt or by dvc.lock."""
        recorded = {stage: self.recorded[stage] for stage in self.stages}
        return [
            stage for stage, receipt in recorded.items() if self.here.get(stage) == receipt or self.locked(stage) == md5(receipt)
        ]

    def locked(self, stage: str) -> str | None:
        """Return the md5 dvc.lock has of a stage's receipt, None when it has no such entry or one that cannot be read."""
        try:
            outs = {out["path"]: str(out["md5"]) for out in self.lock["stages"][stage]["outs"]}
        except (KeyError, TypeError):
            return None
        return outs.get(receipt_path(stage))

    def needs(self, stage: str, *roles: Role) -> dict[str, Path | None]:
        """Return path -> place of the files that a stage read and wrote (or those of the roles given)."""
        return {path: self.places[path] for path in files_of(self.receipts[stage], *roles) if path in self.places}

    def count(self) -> dict[str, int]:
        """Return how many files were read, hard links once, and how many bytes they have."""
        facts = [path.stat() for path, sha256 in self.digests.items() if sha256]
        sizes = {(file.st_dev, file.st_ino): file.st_size for file in facts}
        return {"files": len(sizes), "bytes": sum(sizes.values())}


def read_evidence(
    workspace: Path, recorded: Mapping[str, bytes], last: str, lock: Mapping[str, Any], say: Callable[[str], None]
) -> Evidence:
    """Return the evidence on the stages behind `last`; every file of theirs is hashed now."""
    receipts = {stage: parse(stage, content) for stage, content in recorded.items()}
    stages, cache, here = ancestors(receipts, last), cache_folder(workspace), receipts_here(workspace)
    files = written({stage: receipts[stage] for stage in stages})
    where = {path: candidates(workspace, cache, path, file) for path, file in files.items()}
    say(f"hashing {len(where)} files in the workspace and in the cache")
    digests = _hash_files(place for places in where.values() for place in places)
    good = {
        path: next((place for place in places if digests[place] == files[path]["sha256"]), None) for path, places in where.items()
    }
    return Evidence(workspace, cache, recorded, receipts, stages, here, lock, digests, good)


def read_receipts(folder: Path) -> dict[str, bytes]:
    """Return stage -> receipt of a folder of receipts; empty when there is none."""
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def receipts_here(workspace: Path) -> dict[str, bytes]:
    """Return stage -> receipt as the workspace has it now."""
    return read_receipts(workspace / RECEIPTS)


def candidates(workspace: Path, cache: Path, path: str, file: Digest) -> list[Path]:
    """Return the places where the bytes of an output may be: the cache and the workspace."""
    return [*([object_path(cache, file["md5"])] if "md5" in file else []), workspace / path]


def _hash_files(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return path -> sha256 of its bytes, read now; None where there is no file. Hard links are read once."""
    inodes = {path: _inode(path) for path in paths}
    first = {inode: path for path, inode in reversed(inodes.items()) if inode is not None}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        digests = dict(zip(first, pool.map(_sha256, first.values()), strict=True))
    return {path: digests[inode] if inode is not None else None for path, inode in inodes.items()}


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (facts.st_dev, facts.st_ino)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"
