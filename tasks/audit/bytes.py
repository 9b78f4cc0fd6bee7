"""Checks of bytes: every file of the lineage, in the workspace and in the DVC cache, hashed again and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.artifacts import Digest, receipt_path
from tasks.audit.evidence import Evidence, Places
from tasks.files import file_sha256, listing_md5
from tasks.lineage.chain import Receipts, files_of
from tasks.lineage.checks import Finding, compare, unknown, whole
from tasks.running.dvc import md5, object_path

HASHING_THREADS: Final = 4  # hashing lets go of the interpreter's lock; more do not read a disk faster


@dataclass(frozen=True)
class Hashed:
    """What was read of the outputs of a lineage: where the bytes of each may be, and what lies there."""

    candidates: Mapping[str, list[Path]]
    digests: Mapping[Path, str | None]  # sha256; None where there is no file

    def count(self) -> dict[str, int]:
        """Return how many files were read, hard links once, and how many bytes they have."""
        facts = [path.stat() for path, sha256 in self.digests.items() if sha256]
        sizes = {(file.st_dev, file.st_ino): file.st_size for file in facts}
        return {"files": len(sizes), "bytes": sum(sizes.values())}


def hash_outputs(evidence: Evidence, say: Callable[[str], None]) -> Hashed:
    """Return the digests of every place where the bytes of an output may be, read now."""
    where = candidates(evidence.workspace, evidence.cache, evidence.receipts, evidence.stages)
    say(f"hashing {len(where)} files in the workspace and in the cache")
    return Hashed(where, _hash_files(place for places in where.values() for place in places))


def _hash_files(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return path -> sha256 of its bytes, None where there is no file. Hard links are read once."""
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


def candidates(workspace: Path, cache: Path, receipts: Receipts, stages: Sequence[str]) -> dict[str, list[Path]]:
    """Return path of each output of the stages -> the places where its bytes may be: the cache and the workspace."""
    files = {path: file for stage in stages for path, file in files_of(receipts[stage], "outputs").items()}
    return {
        path: [*([object_path(cache, file["md5"])] if "md5" in file else []), workspace / path] for path, file in files.items()
    }


def good_places(evidence: Evidence, hashed: Hashed) -> dict[str, Path | None]:
    """Return path of each output -> a place that has its very bytes, or None."""
    return {
        path: next((place for place in hashed.candidates[path] if hashed.digests[place] == file["sha256"]), None)
        for _, receipt in evidence.behind
        for path, file in files_of(receipt, "outputs").items()
    }


def in_workspace(evidence: Evidence, hashed: Hashed) -> list[Finding]:
    """Return whether the workspace's files are those that the stages wrote; what is absent may be in the cache."""
    checks = []
    for stage in evidence.current:
        files = files_of(evidence.receipts[stage], "outputs")
        sentence = f"the file is not what {stage} wrote; `dvc checkout` brings it back after it is removed"
        findings: list[Finding] = []
        for path, file in files.items():
            if (here := hashed.digests[evidence.workspace / path]) is not None:
                findings += compare("workspace", path, file["sha256"], here, sentence)
        for path in _strangers(evidence.workspace, evidence.receipts[stage]["outputs"], files):
            findings += compare("workspace", path, "no such file", "a file", f"{stage} did not write it")
        checks += whole("workspace", stage, findings, f"{len(files)} files are what the stage wrote")
    return checks


def _strangers(workspace: Path, outputs: Mapping[str, Digest], files: Mapping[str, Digest]) -> list[str]:
    """Return files that lie in an output folder and that the stage did not write there."""
    folders = [workspace / path for path, entry in outputs.items() if "files" in entry]
    here = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted({path.relative_to(workspace).as_posix() for path in here} - files.keys())


def in_cache(evidence: Evidence, hashed: Hashed) -> list[Finding]:
    """Return whether the DVC cache's objects hold the bytes of their names; a missing object is no fault."""
    checks = []
    for stage, receipt in evidence.behind:
        findings: list[Finding] = []
        for path, file in files_of(receipt, "outputs").items():
            here = hashed.digests.get(object_path(evidence.cache, file["md5"])) if "md5" in file else None
            if here is not None:
                sentence = f"the cache object {file['md5']} has other bytes; remove it, then `dvc pull` or run again"
                findings += compare("cache", path, file["sha256"], here, sentence)
        name = md5(evidence.recorded[stage])
        place = object_path(evidence.cache, name)
        if place.exists():
            sentence = "the cached receipt was changed"
            findings += compare("cache", receipt_path(stage), name, md5(place.read_bytes()), sentence)
        findings += _listings(evidence.cache, receipt["outputs"])
        checks += whole("cache", stage, findings, "every object has the bytes of its name")
    return checks


def _listings(cache: Path, outputs: Mapping[str, Digest]) -> list[Finding]:
    """Return where the cache's listing of an output folder is not the one its name says."""
    findings: list[Finding] = []
    for path, entry in outputs.items():
        if "files" in entry and "md5" in entry:
            place = object_path(cache, entry["md5"])
            sums = listing_md5({name: file["md5"] for name, file in entry["files"].items()})
            findings += compare("cache", path, entry["md5"], sums, "the receipt contradicts itself")
            if place.exists():
                here = md5(place.read_bytes()) + ".dir"
                findings += compare("cache", path, entry["md5"], here, "the cache's listing of the folder was changed")
    return findings


def nowhere(evidence: Evidence, places: Places) -> list[Finding]:
    """Return the stages of which some bytes are neither in the workspace nor in the cache, whole."""
    checks = []
    for stage, receipt in evidence.behind:
        missing = [path for path in files_of(receipt, "outputs") if places[path] is None]
        if missing:
            count = f"{len(missing)} files have their bytes neither here nor in the cache"
            checks.append(unknown("bytes", stage, f"{count}, such as {missing[0]}; `dvc pull`"))
    return checks
