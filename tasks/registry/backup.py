"""`compactlm backup`: a workspace as files by their digest, so that it can be made again where nothing of it is left.

Git as one bundle of all refs, what differs from its last commit, what MLflow and Prefect keep below .compactlm (databases by
SQLite's own backup), and the objects of DVC's cache that anything names. `tasks.registry.restore` brings them back.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tasks.errors import UserError, without_passwords
from tasks.files import read_json
from tasks.git import create_bundle, git, has_git, is_shallow, path_of, refs_of, uncommitted
from tasks.registry.named import LOCK, names_of, names_of_receipts, texts_here, texts_in_git, texts_of
from tasks.registry.runs import read_runs
from tasks.registry.store import OWN, WAIT_SECONDS
from tasks.registry.tracking import is_shared
from tasks.running.dvc import cache_folder
from tasks.running.identity import workspace_id
from tasks.running.objects import md5_of, names_here, object_path, outputs_in, with_files
from tasks.running.start import AUDIT, only_run
from tasks.running.vault import Kept, Vault, described, files_in, followed, shortened

KIND: Final = "workspace"
OWNED: Final = ".compactlm"
INDEX: Final = f"{OWN}/mlflow.db"
TIMES: Final = f"{OWNED}/prefect/prefect.db"  # Prefect's: when flows ran
DATABASES: Final = (INDEX, TIMES)
RECORDS: Final = (f"{OWNED}/last_run.json", f"{OWNED}/params-changes.json")
# Kept though Git may know them: a person may have told it to ignore them, and without them nothing can be understood.
ALWAYS: Final = ("params.yaml", "dvc.yaml", LOCK, "sources.lock", "decisions.jsonl", "approvals/*.json")
BUNDLE: Final = "repository.bundle"


@dataclass
class _Seen:
    """What was found while a backup was made: files by kind, and what is lacking."""

    vault: Vault
    known: Mapping[str, Any]  # the manifest before this one
    files: dict[str, Kept] = field(default_factory=dict)
    cache: dict[str, Kept] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind of thing that is not in the backup."""
        notes = []
        if self.missing:
            notes.append(
                f"{len(self.missing)} outputs that commits or runs name are not in DVC's cache here: {shortened(self.missing)}; "
                "`dvc fetch --all-commits --run-cache` brings those that a remote has"
            )
        if self.damaged:
            notes.append(
                f"{len(self.damaged)} objects of DVC's cache have other bytes than their names say, and were left out: "
                f"{shortened(self.damaged)}; remove them, then `dvc fetch` or run again"
            )
        if self.links:
            notes.append(f"links that are not committed are not in it: {shortened(self.links)}; commit them")
        if self.outside:
            notes.append(f"sources outside of the project are not in it: {shortened(self.outside)}; keep copies of them yourself")
        if is_shared():
            notes.append("MLflow's server is not in it: whoever manages that server backs it up (infra/README.md)")
        return notes


def backup(workspace: Path, folder: Path) -> dict[str, Any]:
    """Return what was written: the manifest, files and bytes, how many of these are new, and notes on what is lacking.

    UserError where the project cannot be made again from Git, ResourceError while a run is under way.
    """
    began = time.monotonic()
    _refuse(workspace, folder)
    vault = Vault(folder)
    with only_run(workspace, AUDIT), _databases(workspace, folder) as copies:
        known = vault.read(KIND) if vault.times() else {}
        if known and known["workspace"] != (own := workspace_id(workspace)):
            raise UserError(
                f"{folder}: it holds backups of another workspace ({known['workspace']}, this is {own}); name another folder"
            )
        seen = _Seen(vault, known)
        kept, gone = uncommitted(workspace)
        seen.links = [name for name in kept if (workspace / name).is_symlink()]
        kept = [name for name in kept if name not in seen.links]
        always = [path.relative_to(workspace).as_posix() for name in ALWAYS for path in workspace.glob(name)]
        names = sorted({*kept, *always, *_own_files(workspace)} - {*DATABASES})
        objects = _objects(workspace, seen)
        sizes = [(workspace / name).stat().st_size for name in names] + [objects[name].stat().st_size for name in objects]
        before = sum(entry.size_bytes for key in ("files", "cache") for entry in files_in(known, key).values())
        vault.require_room(max(0, sum(sizes) - before))
        seen.outside = _outside(workspace)
        places = {name: workspace / name for name in names} | copies
        _keep(seen, places, seen.files, "files")
        _keep(seen, objects, seen.cache, "cache")
        content = {
            "kind": KIND,
            "workspace": workspace_id(workspace),
            "git": (in_git := _git(workspace, seen)),
            "files": described(seen.files),
            "gone": gone,
            "cache": described(seen.cache),
        }
        manifest = vault.seal(content)
    all_files = [*seen.files.values(), *seen.cache.values()]
    return {
        "folder": str(folder),
        "manifest": str(manifest),
        "files": len(all_files) + 1,
        "bytes": sum(kept.size_bytes for kept in all_files) + in_git["bundle"]["size_bytes"],
        "new_bytes": vault.copied_bytes,
        "refs": len(in_git["refs"]),
        "notes": seen.notes,
        "damaged": seen.damaged,
        "seconds": round(time.monotonic() - began, 2),
    }


def _refuse(workspace: Path, folder: Path) -> None:
    if folder.resolve().is_relative_to(workspace.resolve()):
        raise UserError(f"{folder}: a backup inside of the project is lost with it; name a folder outside of {workspace}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: it is a file; name a folder")
    if not has_git(workspace) or git(workspace, "rev-parse", "--verify", "HEAD").returncode:
        raise UserError(
            f"{workspace}: Git has no commit of this project to make it again from; `git init && git add -A && git commit`"
        )
    if is_shallow(workspace):
        raise UserError(
            f"{workspace}: this clone lacks older commits, so a backup would too; `git fetch --unshallow`, then call again"
        )


def _own_files(workspace: Path) -> list[str]:
    """Return the files below .compactlm that cannot be made again, or not soon; downloads and half-done training can."""
    found = [name for name in RECORDS if (workspace / name).is_file()]
    if not is_shared():
        found += [path.relative_to(workspace).as_posix() for path in (workspace / OWN).rglob("*") if path.is_file()]
    return [name for name in found if not name.endswith(("-journal", "-wal", "-shm", ".partial"))]


@contextmanager
def _databases(workspace: Path, folder: Path) -> Iterator[dict[str, Path]]:
    """Give name -> a copy of each database as it stands at one moment, whoever writes meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".scratch-*"):  # by a kill
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=folder) as scratch:
        copies = {}
        for number, name in enumerate(name for name in DATABASES if (workspace / name).is_file()):
            if is_shared() and name.startswith(OWN):
                continue
            copies[name] = Path(scratch) / str(number)
            copy_database(workspace / name, copies[name])
        yield copies


def copy_database(path: Path, place: Path) -> None:
    """Copy a database as it stands at one moment; the same content gives the same bytes."""
    address = f"file:{quote(str(path))}?mode=rw"  # it may have to roll back what a kill has left
    source, target = sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS), sqlite3.connect(place)
    with closing(source), closing(target):
        source.backup(target)


def _objects(workspace: Path, seen: _Seen) -> dict[str, Path]:
    """Return path in the cache -> place of the objects that anything names, and of the entries of the run cache."""
    cache, records = cache_folder(workspace), read_runs(workspace)
    texts = [*texts_in_git(workspace), *texts_here(workspace), *texts_of(records)]
    stored = (workspace / OWN / "artifacts").glob("*/artifacts/receipts/*.json")
    receipts = [path.read_bytes() for path in (*stored, *(workspace / "artifacts/receipts").glob("*.json"))]
    here = names_here(cache)
    named = with_files(cache, names_of(texts) | names_of_receipts(receipts))
    outputs = {item for text in texts for item in outputs_in(text).items()}
    seen.missing = sorted({path for path, md5 in outputs if md5 not in here})
    places = [object_path(cache, name) for name in sorted(named & here.keys())]
    places += sorted(path for path in (cache / "runs").rglob("*") if path.is_file())
    return {path.relative_to(cache).as_posix(): path for path in places}


def _keep(seen: _Seen, places: Mapping[str, Path], into: dict[str, Kept], key: str) -> None:
    before = files_in(seen.known, key)
    for name in followed(list(places), "backup"):
        if key == "cache" and name.startswith("files/") and name not in before and not _is_whole(places[name]):
            seen.damaged.append(name)
            continue
        mode = None if name not in DATABASES else 0o644
        kept = seen.vault.put(places[name], None if mode else before.get(name))
        into[name] = kept if mode is None else Kept(kept.sha256, kept.size_bytes, mode, kept.mtime_ns)


def _is_whole(place: Path) -> bool:
    return md5_of(place) == (place.parent.name + place.name).partition(".")[0]


def _outside(workspace: Path) -> list[str]:
    """Return the files and folders outside of the project that sources.lock names."""
    place = workspace / "sources.lock"
    sources = [str(entry.get("source", "")) for entry in read_json(place).values()] if place.is_file() else []
    paths = {source.removeprefix("path:") for source in sources if source.startswith("path:")}
    return sorted(path for path in paths if not (workspace / path).resolve().is_relative_to(workspace.resolve()))


def _git(workspace: Path, seen: _Seen) -> dict[str, Any]:
    """Return what a manifest says of Git; the bundle of the backup before serves again while no ref has moved."""
    refs = refs_of(workspace, "refs")
    branch = git(workspace, "symbolic-ref", "--quiet", "HEAD").stdout.decode().strip()
    before = seen.known.get("git", {})
    facts = {
        "refs": refs,
        "head": path_of(workspace, "HEAD"),
        "branch": branch,
        "prefix": path_of(workspace, "--show-prefix"),
        "remotes": _remotes(workspace),
    }
    if before and all(before[key] == facts[key] for key in ("refs", "head")):
        return {**facts, "bundle": before["bundle"]}
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=seen.vault.folder) as scratch:
        create_bundle(workspace, Path(scratch) / BUNDLE)
        return {**facts, "bundle": described({"": seen.vault.put(Path(scratch) / BUNDLE)})[""]}


def _remotes(workspace: Path) -> dict[str, str]:
    """Return name -> address of Git's remotes, without passwords."""
    listed = git(workspace, "config", "--get-regexp", r"^remote\..*\.url$").stdout.decode(errors="replace").splitlines()
    pairs = [line.split(" ", 1) for line in listed if " " in line]
    return {key.removeprefix("remote.").removesuffix(".url"): without_passwords(address) for key, address in pairs}
