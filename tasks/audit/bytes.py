"""Checks of bytes: every file of the lineage, in the workspace and in the DVC cache, hashed again and compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tasks.files import file_sha256, listing_md5
from tasks.lineage.chain import RECEIPTS_FOLDER, Receipts, files_of
from tasks.lineage.checks import Finding, compare, unknown, whole
from tasks.running.dvc import md5, object_path

HASHING_THREADS: Final = 4  # hashing lets go of the interpreter's lock; more do not read a disk faster
Digests = Mapping[Path, str | None]


def hash_files(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return path -> sha256 of its bytes, read now; None where there is no file. Hard links are read once."""
    wanted = list(dict.fromkeys(paths))
    inodes: dict[Path, tuple[int, int] | None] = {path: _inode(path) for path in wanted}
    first = {inode: path for path, inode in reversed(inodes.items()) if inode is not None}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = dict(zip(first, pool.map(_sha256, first.values()), strict=True))
    return {path: found[inode] if inode is not None else None for path, inode in inodes.items()}


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
    found: dict[str, list[Path]] = {}
    for stage in stages:
        for path, one in files_of(receipts[stage], "outputs").items():
            found[path] = [object_path(cache, one["md5"])] if "md5" in one else []
            found[path].append(workspace / path)
    return found


def in_workspace(workspace: Path, receipts: Receipts, stages: Sequence[str], digests: Digests) -> list[Finding]:
    """Return whether the workspace's files of these stages are those they wrote; what is absent may be in the cache."""
    checks = []
    for stage in stages:
        wanted = files_of(receipts[stage], "outputs")
        found: list[Finding] = []
        for path, one in wanted.items():
            here = digests[workspace / path]
            if here is not None:
                sentence = f"the file is not what {stage} wrote; `dvc checkout` brings it back after it is removed"
                found += compare("workspace", path, one["sha256"], here, sentence)
        for path in _strangers(workspace, receipts[stage]["outputs"], wanted):
            found += compare("workspace", path, "no such file", "a file", f"{stage} did not write it")
        checks += whole("workspace", stage, found, f"{len(wanted)} files are what the stage wrote")
    return checks


def _strangers(workspace: Path, outputs: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return files that lie in an output folder and that the stage did not write there."""
    found = []
    for path, entry in outputs.items():
        if "files" in entry:
            here = [p.relative_to(workspace).as_posix() for p in (workspace / path).rglob("*") if p.is_file()]
            found += [name for name in here if name not in wanted]
    return sorted(found)


def in_cache(
    cache: Path, receipts: Receipts, recorded: Mapping[str, bytes], stages: Sequence[str], digests: Digests
) -> list[Finding]:
    """Return whether the DVC cache's objects hold the bytes of their names; a missing object is no fault."""
    checks = []
    for stage in stages:
        found: list[Finding] = []
        files = files_of(receipts[stage], "outputs")
        for path, one in files.items():
            here = digests.get(object_path(cache, one["md5"])) if "md5" in one else None
            if here is not None:
                sentence = f"the cache object {one['md5']} has other bytes; remove it, then `dvc pull` or run again"
                found += compare("cache", path, one["sha256"], here, sentence)
        place = object_path(cache, md5(recorded[stage]))
        if place.exists():
            path = f"{RECEIPTS_FOLDER}/{stage}.json"
            found += compare(
                "cache", path, md5(recorded[stage]), md5(place.read_bytes()), "the cached receipt was changed"
            )
        found += _listings(cache, receipts[stage]["outputs"])
        checks += whole("cache", stage, found, "every object has the bytes of its name")
    return checks


def _listings(cache: Path, outputs: Mapping[str, Any]) -> list[Finding]:
    """Return where the cache's listing of an output folder is not the one its name says."""
    found: list[Finding] = []
    for path, entry in outputs.items():
        if "files" in entry and "md5" in entry:
            place = object_path(cache, entry["md5"])
            sums = listing_md5({name: str(one["md5"]) for name, one in entry["files"].items()})
            found += compare("cache", path, entry["md5"], sums, "the receipt contradicts itself")
            if place.exists():
                here = md5(place.read_bytes()) + ".dir"
                found += compare("cache", path, entry["md5"], here, "the cache's listing of the folder was changed")
    return found


def nowhere(receipts: Receipts, stages: Sequence[str], places: Mapping[str, Path | None]) -> list[Finding]:
    """Return the stages of which some bytes are neither in the workspace nor in the cache, whole."""
    found = []
    for stage in stages:
        missing = [path for path in files_of(receipts[stage], "outputs") if places[path] is None]
        if missing:
            words = (
                f"{len(missing)} files have their bytes neither here nor in the cache, such as {missing[0]}; `dvc pull`"
            )
            found.append(unknown("bytes", stage, words))
    return found


def good_places(
    receipts: Receipts, stages: Sequence[str], where: Mapping[str, list[Path]], digests: Digests
) -> dict[str, Path | None]:
    """Return path of each output -> a place that has its very bytes, or None."""
    found: dict[str, Path | None] = {}
    for stage in stages:
        for path, one in files_of(receipts[stage], "outputs").items():
            found[path] = next((place for place in where[path] if digests[place] == one["sha256"]), None)
    return found
