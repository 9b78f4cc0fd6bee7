"""A forger who changes a file and every record of it alike, so that only doing the work again can tell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from tasks.files import full_digest, write_json
from tasks.lineage.merkle import receipts_root
from tasks.promotion.decisions import LOG, REFS, Decision, commit, read_refs, sealed
from tests.tampering import STORE


def forge_output(project: Path, stage: str, path: str, change: Callable[[str], str]) -> None:
    """Change a text file that a stage wrote, and the receipts and digests of it wherever they are kept."""
    place = project / path
    old = full_digest(place)
    place.unlink()
    place.write_text(change(_cached(project, old["md5"]).read_text(encoding="utf-8")), encoding="utf-8")
    new = full_digest(place)
    _into_cache(project, place)
    receipt = project / f"artifacts/receipts/{stage}.json"
    before = receipt.read_bytes()
    content = json.loads(before)
    content["outputs"][path] = new
    receipt.unlink()
    write_json(receipt, content)
    _into_cache(project, receipt)
    lock = project / "dvc.lock"
    text = lock.read_text(encoding="utf-8").replace(old["md5"], new["md5"])
    lock.write_text(text.replace(_md5(before), _md5(receipt.read_bytes())), encoding="utf-8")
    for copy in (project / ".compactlm/mlflow/artifacts").rglob(f"receipts/{stage}.json"):
        shutil.copyfile(receipt, copy)
    root = receipts_root({receipt.stem: receipt.read_bytes() for receipt in (project / "artifacts/receipts").glob("*.json")})
    with contextlib.closing(sqlite3.connect(project / STORE)) as connection:
        connection.execute("UPDATE tags SET value = ? WHERE key = 'compactlm.receipts_root'", (root,))
        connection.commit()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _cached(project: Path, md5: str) -> Path:
    return project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _into_cache(project: Path, place: Path) -> None:
    target = _cached(project, _md5(place.read_bytes()))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place, target)


def forge_log(project: Path, change: Callable[[list[Decision]], None]) -> None:
    """Change decisions and make the chain anew, in the file and in the Git refs alike."""
    log = read_refs(project)
    change(log)
    forged: list[Decision] = []
    for entry in log:
        content = {key: value for key, value in entry.items() if key not in ("number", "previous_sha256", "sha256")}
        forged.append(sealed(content, forged))
    text = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in forged)
    (project / LOG).write_text(text, encoding="utf-8")
    for entry in forged:
        name = f"{REFS}/{entry['number']:08d}"
        subprocess.run(["git", "update-ref", "-d", name], cwd=project, check=True)
        assert commit(project, entry)
