"""`compactlm restore`: a workspace from its backup, in an empty folder or in one that has lost something.

Everything is looked at before anything is written: each content in the backup against its digest, each place in the workspace for
something that would be lost. What was cut short is finished by the same command: what is there already is left alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tasks.errors import UserError
from tasks.files import file_sha256, project_of
from tasks.git import fetch_objects, git, has_git, path_of, refs_of, uncommitted
from tasks.registry.backup import INDEX, KIND, TIMES, copy_database
from tasks.running.dvc import cache_folder, checkout
from tasks.running.identity import known_id, take_id
from tasks.running.start import only_run
from tasks.running.vault import Kept, Vault, files_in, followed, shortened

BRANCHES: Final = "refs/heads/"
COPIES: Final = "refs/remotes/"  # of what others have: not ours to bring back


@dataclass
class _Plan:
    """What is to be written where: targets with their contents, and refs; `differs` says what stands in the way."""

    refs: dict[str, str] = field(default_factory=dict)
    files: dict[Path, Kept] = field(default_factory=dict)
    there: int = 0
    differs: list[str] = field(default_factory=list)


def restore(folder: Path, start: Path, at: str | None = None) -> dict[str, Any]:
    """Return what was restored, and where: in the project that holds `start`, or in `start` itself, an empty folder.

    UserError where the backup is damaged, or something here differs from it, before anything is written.
    """
    began = time.monotonic()
    vault = Vault(folder)
    manifest = vault.read(KIND, at)
    bundle = Kept(**manifest["git"]["bundle"])
    files, objects = files_in(manifest, "files"), files_in(manifest, "cache")
    _require_inside([*files, *objects, *manifest["gone"]], folder)
    workspace = _place(start, manifest["git"])
    vault.require_whole([bundle, *files.values(), *objects.values()])
    needed = sum(kept.size_bytes for kept in (bundle, *files.values(), *objects.values()))
    Vault(start).require_room(needed)
    if fresh := not (workspace / "dvc.yaml").exists():
        _clone(start, vault.path(bundle.sha256), manifest["git"])
    workspace.mkdir(exist_ok=True)
    with only_run(workspace):
        cache = cache_folder(workspace)
        plan = _planned(workspace, cache, manifest, fresh)
        if plan.differs:
            raise UserError(
                f"{workspace}: nothing was restored, for it would write over what differs from the backup: "
                f"{shortened(plan.differs)}; move that away, or restore into an empty folder"
            )
        _bring_refs(workspace, vault.path(bundle.sha256), plan.refs)
        for target in followed(list(plan.files), "restore"):
            vault.bring(plan.files[target], target)
        for name in manifest["gone"]:
            (workspace / name).unlink(missing_ok=True)
        if known_id(workspace) != manifest["workspace"]:
            take_id(workspace, manifest["workspace"])
        lacking = checkout(workspace)
    return {
        "workspace": str(workspace),
        "backup": manifest["made_at"],
        "written": len(plan.files),
        "there": plan.there,
        "refs": sum(name.startswith("refs/compactlm/") for name in manifest["git"]["refs"]),
        "lacking": lacking,
        "seconds": round(time.monotonic() - began, 2),
    }


def _require_inside(names: Iterable[str], folder: Path) -> None:
    """Raise UserError for a name that leads out of the project, or into Git's own folder: no backup of ours has one."""
    parts = {name: PurePosixPath(name).parts for name in names}
    odd = sorted(name for name, path in parts.items() if name.startswith("/") or ".." in path or ".git" in path)
    if odd:
        raise UserError(f"{folder}: its manifest names {shortened(odd)}, where nothing is restored; somebody made it by hand")


def _place(start: Path, facts: Mapping[str, Any]) -> Path:
    """Return where the project is, or will be."""
    known = project_of(start)
    if known is not None:
        if not has_git(known):
            raise UserError(
                f"{known}: in no Git repository, so its history cannot be restored here; restore into an empty folder"
            )
        return known
    if any(start.iterdir()):
        raise UserError(
            f"{start}: neither empty nor a compactlm project; change into an empty folder, or into a clone of the project"
        )
    return start / str(facts["prefix"])


def _clone(top: Path, bundle: Path, facts: Mapping[str, Any]) -> None:
    """Make a repository of the bundle in an empty folder, with all refs, at the commit at which it stood."""
    branch = str(facts["branch"])
    steps = [
        ["init", "--quiet"],
        ["fetch", "--quiet", "--update-head-ok", "--no-tags", str(bundle), "+refs/*:refs/*"],
        ["symbolic-ref", "HEAD", branch] if branch else ["update-ref", "--no-deref", "HEAD", str(facts["head"])],
        ["reset", "--quiet", "--hard"],
        *(["remote", "add", name, address] for name, address in facts["remotes"].items()),
    ]
    for words in steps:
        done = git(top, *words)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise UserError(f"{top}: git {words[0]} of the backup's bundle: {said}; empty that folder and call again")


def _planned(workspace: Path, cache: Path, manifest: Mapping[str, Any], fresh: bool) -> _Plan:
    """Return what is to be written; nothing is changed."""
    plan = _Plan()
    _plan_refs(plan, workspace, manifest["git"])
    changed, _ = uncommitted(workspace)
    as_committed = set(os.fsdecode(git(workspace, "ls-files", "-z").stdout).split("\0")) - set(changed)
    for name, kept in files_in(manifest, "files").items():
        if name == INDEX and (workspace / name).is_file() and _is_database(workspace / name, kept):
            plan.there += 1
        elif name != TIMES or not (workspace / name).exists():  # runs have been shown since: those stay
            _plan_file(plan, workspace / name, kept, name, fresh or name in as_committed)
    for name, kept in files_in(manifest, "cache").items():
        _plan_file(plan, cache / name, kept, f"DVC's cache: {name}", name.startswith("runs/"))
    for name in manifest["gone"]:
        if name in changed and not fresh:
            plan.differs.append(f"{name} (in the backup it is gone)")
    known = known_id(workspace)
    if known is not None and known != manifest["workspace"]:
        plan.differs.append(f".compactlm/workspace.json (another workspace, {known}, has worked here)")
    return plan


def _is_database(path: Path, kept: Kept) -> bool:
    """Return whether a database has the content of the one in the backup."""
    with tempfile.TemporaryDirectory(prefix=".database-", dir=path.parent) as scratch:
        copy_database(path, Path(scratch) / path.name)
        return file_sha256(Path(scratch) / path.name) == kept.sha256


def _plan_refs(plan: _Plan, workspace: Path, facts: Mapping[str, Any]) -> None:
    here = refs_of(workspace, "refs")
    head = path_of(workspace, "HEAD")
    if head != facts["head"]:
        plan.differs.append(f"HEAD (commit {head[:12]} here, {str(facts['head'])[:12]} in the backup)")
    for name, blob in facts["refs"].items():
        if name.startswith(COPIES):
            continue
        if name not in here:
            plan.refs[name] = blob
        elif here[name] != blob and not (name.startswith(BRANCHES) and _leads_to(workspace, here[name], blob)):
            plan.differs.append(f"{name} ({here[name][:12]} here, {blob[:12]} in the backup)")


def _leads_to(workspace: Path, newer: str, older: str) -> bool:
    return git(workspace, "merge-base", "--is-ancestor", older, newer).returncode == 0


def _plan_file(plan: _Plan, target: Path, kept: Kept, name: str, replaceable: bool) -> None:
    if not os.path.lexists(target):
        plan.files[target] = kept
    elif target.is_file() and target.stat().st_size == kept.size_bytes and file_sha256(target) == kept.sha256:
        plan.there += 1
    elif replaceable and target.is_file():
        plan.files[target] = kept  # Git has what is there, or DVC makes it again
    else:
        plan.differs.append(name)


def _bring_refs(workspace: Path, bundle: Path, refs: Mapping[str, str]) -> None:
    """Make the refs that are not here; what they lead to comes first."""
    if not refs:
        return
    try:
        fetch_objects(workspace, str(bundle), list(refs))
    except OSError as error:
        raise UserError(f"{bundle}: Git cannot read the bundle: {error}; take another backup with --at") from None
    for name, blob in refs.items():
        done = git(workspace, "update-ref", name, blob, "")
        if done.returncode:
            raise UserError(
                f"{workspace}: Git makes no {name}: {done.stderr.decode(errors='replace').strip()}; mend that, call again"
            )
