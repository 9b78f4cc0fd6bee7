"""Who may approve a model and who made it: read from params.yaml, a file of keys, receipts and Git."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.errors import UserError
from tasks.files import read_json
from tasks.git import git
from tasks.params.gates import Approval
from tasks.promotion.decisions import VersionRecord
from tasks.promotion.keys import public_key
from tasks.registry.reading import Reader


def policy_of(approval: Approval, folder: Path) -> dict[str, Any]:
    """Return `promotion.approval` with its approvers as name -> public key; a file of them is read below `folder`."""
    approvers, where = approval.approvers, "params.yaml: promotion.approval.approvers"
    if isinstance(approvers, str):
        where = str(folder / approvers)
        approvers = _read_approvers(folder / approvers)
    keys: dict[str, str] = {}
    for name, line in approvers.items():
        try:
            keys[name] = public_key(line)
        except ValueError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    if len(set(keys.values())) < len(keys):
        raise UserError(f"{where}: two approvers have the same key; everybody needs a key of their own")
    if len(keys) < approval.quorum:
        raise UserError(f"params.yaml: promotion.approval.quorum: {approval.quorum}, but {where} has {len(keys)} approvers")
    return {**approval.model_dump(mode="json"), "approvers": keys}


def _read_approvers(path: Path) -> dict[str, str]:
    """Return name -> public key of a file with a line each, as in the `allowed_signers` of SSH."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; it has a line an approver: NAME ssh-ed25519 KEY")
    keys: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, key = line.strip().partition(" ")
        if name and not name.startswith("#"):
            if name in keys:
                raise UserError(f"{path}: line {number}: {name} stands there twice; one key a person")
            keys[name] = key
    return keys


def doubt(workspace: Path, asked: Approval, authors: Sequence[str]) -> str | None:
    """Return what keeps a proposal from being trusted: who may approve is not in Git, or the author is unknown."""
    for name in ["params.yaml", *([asked.approvers] if isinstance(asked.approvers, str) else [])]:
        kept = git(workspace, "cat-file", "blob", f"HEAD:./{name}")
        if kept.returncode or kept.stdout != (workspace / name).read_bytes():
            return f"{name} is not as it is committed, and who may approve must stand in Git; commit it"
    if asked.not_author and not authors:
        return "the author of the model's commit is not known, and promotion.approval.not_author is asked"
    return None


def authors_of(tracker: Reader, candidate: VersionRecord) -> list[str]:
    """Return names and addresses of the authors of the commits at which a version's stages ran; empty if one is unknown."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = tracker.run_files(candidate["run_id"], "receipts", Path(scratch)) if candidate["run_id"] else None
        receipts = sorted(folder.glob("*.json")) if folder else []
        try:
            commits = {str(read_json(path)["git"]["commit"]) for path in receipts}
        except (ValueError, TypeError, KeyError):  # a receipt that is none
            return []
    authors: set[str] = set()
    for commit in commits:
        done = git(tracker.workspace, "log", "-1", "--format=%an%n%ae", commit, "--")
        if done.returncode:
            return []
        authors |= set(done.stdout.decode().split("\n")) - {""}
    return sorted(authors)
