"""A folder of bytes by their sha256, with manifests that say what they are: what a backup is made of.

`objects/ab/cd...` holds each content once, however often and in however many backups it occurs; nothing there is ever changed or
removed. A manifest is written last, so that a backup that was cut short is none; it names every file, and carries its own digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from tasks.errors import ResourceError, UserError
from tasks.files import file_sha256, parse_object
from tasks.progress import Progress

FORMAT: Final = 1
MANIFESTS: Final = "manifests"
OBJECTS: Final = "objects"
TIME: Final = "%Y-%m-%dT%H-%M-%SZ"  # in the name of a manifest, so that the newest comes last
SPARE_BYTES: Final = 1 << 26
SHOWN: Final = 5  # faults of a list
Item = TypeVar("Item")


@dataclass(frozen=True)
class Kept:
    """A file in a vault: its content, and what it was where it came from."""

    sha256: str
    size_bytes: int
    mode: int
    mtime_ns: int


def followed(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield files that are worked on; every two seconds a line says how far that is."""
    progress = Progress(label, len(items), "files")
    for done, item in enumerate(items):
        if done:
            progress.update(done)
        yield item


def shortened(names: Sequence[str]) -> str:
    """Return the first of some names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class Vault:
    """A backup folder; `put` and `seal` write, all else reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copied_bytes = 0

    def path(self, sha256: str) -> Path:
        """Return where the content with this digest is."""
        return self.folder / OBJECTS / sha256[:2] / sha256[2:]

    def put(self, source: Path, known: Kept | None = None) -> Kept:
        """Keep the content of a file; one that is as it was when it was `known` is not read again.

        UserError where it changes while it is copied, ResourceError on a full disk.
        """
        facts = source.stat()
        size, mtime, mode = facts.st_size, facts.st_mtime_ns, facts.st_mode & 0o777
        if known and (known.size_bytes, known.mtime_ns) == (size, mtime) and self._has(known.sha256, size):
            return Kept(known.sha256, size, mode, mtime)
        sha256 = file_sha256(source)
        if not self._has(sha256, size):
            self._copy(source, sha256)
            self.copied_bytes += size
        return Kept(sha256, size, mode, mtime)

    def _has(self, sha256: str, size: int) -> bool:
        place = self.path(sha256)
        return place.is_file() and place.stat().st_size == size

    def _copy(self, source: Path, sha256: str) -> None:
        place = self.path(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.partial")
        try:
            shutil.copyfile(source, partial)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ResourceError(
                f"{partial}: cannot be written ({error.strerror}); no backup was made; make room there and call again"
            ) from None
        if file_sha256(partial) != sha256:
            partial.unlink()
            raise UserError(
                f"{source}: it changed while it was copied, so no backup was made; try again when nothing writes there"
            )
        partial.replace(place)

    def require_room(self, size: int) -> None:
        """Raise ResourceError unless this many bytes fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size + SPARE_BYTES > free:
            raise ResourceError(
                f"{self.folder}: {free / 1e6:,.0f} MB are free, {size / 1e6:,.0f} MB are needed; give another folder"
            )

    # Manifests

    def seal(self, content: Mapping[str, Any]) -> Path:
        """Write a manifest: with it there is a backup."""
        made_at = datetime.now(UTC)
        whole = {"format": FORMAT, "made_at": made_at.strftime("%Y-%m-%dT%H:%M:%SZ"), **content}
        text = json.dumps({**whole, "sha256": _sha256(whole)}, sort_keys=True, indent=1) + "\n"
        folder = self.folder / MANIFESTS
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{made_at.strftime(TIME)}.json"
        while place.exists():  # another one of this second
            time.sleep(1)
            place = folder / f"{datetime.now(UTC).strftime(TIME)}.json"
        partial = place.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place)
        return place

    def times(self) -> list[str]:
        """Return the names of the backups in this folder, oldest first."""
        return sorted(path.stem for path in (self.folder / MANIFESTS).glob("*.json"))

    def read(self, kind: str, at: str | None = None) -> dict[str, Any]:
        """Return the manifest of a backup, the newest one unless its time is given; UserError where there is no whole one."""
        times = self.times()
        if not times:
            raise UserError(
                f"{self.folder}: there is no backup: no {MANIFESTS}/*.json, which is written last; name another folder"
            )
        if at is not None and at not in times:
            raise UserError(f"--at {at}: {self.folder} has no backup of that time; it has {shortened(times[::-1])}")
        place = self.folder / MANIFESTS / f"{at or times[-1]}.json"
        try:
            content = parse_object(place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{place}: no manifest: {error}; {_another(times, place)}") from None
        stated = content.pop("sha256", None)
        if stated != _sha256(content):
            raise UserError(f"{place}: it was changed: its sha256 is not that of its content; {_another(times, place)}")
        made = (content.get("format"), content.get("kind"))
        if made != (FORMAT, kind):
            raise UserError(f"{place}: format {made[0]!r} of {made[1]!r}; only format {FORMAT} of {kind!r} is restored")
        return content

    def require_whole(self, files: Iterable[Kept]) -> None:
        """Raise UserError unless the vault has each content with its very bytes; all of them are read."""
        sizes = {kept.sha256: kept.size_bytes for kept in files}
        wrong = []
        for sha256 in followed(sorted(sizes), "checking"):
            place = self.path(sha256)
            if not place.is_file():
                wrong.append(f"{place.relative_to(self.folder)} is missing")
            elif file_sha256(place) != sha256:
                wrong.append(f"{place.relative_to(self.folder)} has other bytes than its name says")
        if wrong:
            raise UserError(
                f"{self.folder}: the backup is damaged, so nothing was restored: {shortened(wrong)}; "
                "take another copy of it, or an earlier backup with --at"
            )

    def bring(self, kept: Kept, target: Path) -> None:
        """Write a content to a place, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(self.path(kept.sha256), partial)
        partial.chmod(kept.mode)
        partial.replace(target)


def described(files: Mapping[str, Kept]) -> dict[str, dict[str, Any]]:
    """Return files as a manifest says them."""
    return {name: asdict(kept) for name, kept in files.items()}


def files_in(manifest: Mapping[str, Any], key: str) -> dict[str, Kept]:
    """Return the files of one kind that a manifest names."""
    return {str(name): Kept(**entry) for name, entry in manifest.get(key, {}).items()}


def former(vault: Vault, kind: str, key: str) -> dict[str, Kept]:
    """Return the files of the newest backup in a folder; none where there is none that can be read."""
    try:
        return files_in(vault.read(kind), key)
    except UserError:
        return {}


def _another(times: Sequence[str], place: Path) -> str:
    others = [time for time in times if time != place.stem]
    return f"--at {others[-1]} takes the one before" if others else "there is no other backup in this folder"


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
