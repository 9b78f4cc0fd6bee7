"""The files of a former run, found again by its dvc.lock: from the DVC cache, or from a workspace that still has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tasks.lineage.audit_files import object_path

# What an index needs of a run; the other files (checkpoints, tokens, logits) stay where they are.
NEEDED: Final = (
    "artifacts/receipts/*.json", "artifacts/data/sets/*.parquet", "artifacts/selection.json", "artifacts/report.html",
    "artifacts/baselines/quality.json", "artifacts/validation/summary.json", "artifacts/rounds/*/trained/model/*",
    "artifacts/rounds/*/trained/summary.json", "artifacts/rounds/*/trained/steps.jsonl",
    "artifacts/rounds/*/exported/model.onnx", "artifacts/rounds/*/exported/parity.json",
    "artifacts/rounds/*/evaluated/*", "artifacts/rounds/*/verdict.json", "artifacts/rounds/*/pruned/plan.json",
)  # fmt: skip


def bring(
    lock: Mapping[str, Any], stages: Sequence[str], cache: Path, workspace: Path, into: Path
) -> dict[str, list[str]]:
    """Copy the needed files of a run below `into`, each with the bytes of its digest; return stage -> what is missing."""
    missing: dict[str, list[str]] = {}
    for stage in stages:
        for out in lock.get("stages", {}).get(stage, {}).get("outs", []):
            for path, md5 in _files(str(out["path"]), str(out["md5"]), cache, workspace):
                if md5 is None:
                    missing.setdefault(stage, []).append(path)
                elif any(fnmatchcase(path, pattern) for pattern in NEEDED):
                    content = _read(md5, path, cache, workspace)
                    if content is None:
                        missing.setdefault(stage, []).append(path)
                        continue
                    place = into / path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
    return missing


def _files(path: str, md5: str, cache: Path, workspace: Path) -> Iterator[tuple[str, str | None]]:
    """Give (path, md5) of each file of an output; a folder whose listing is nowhere gives itself and None."""
    if not md5.endswith(".dir"):
        yield path, md5
        return
    listing = _read(md5.removesuffix(".dir"), None, cache, workspace, suffix=".dir")
    if listing is None:
        yield path, None
        return
    for entry in json.loads(listing):
        yield f"{path}/{entry['relpath']}", str(entry["md5"])


def _read(md5: str, path: str | None, cache: Path, workspace: Path, suffix: str = "") -> bytes | None:
    """Return the bytes with this digest, None when they are nowhere whole."""
    for place in (object_path(cache, md5 + suffix), *([workspace / path] if path else [])):
        if place.is_file():
            content = place.read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                return content
    return None
