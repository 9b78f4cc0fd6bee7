"""The files of a former run, found again by its dvc.lock: from the DVC cache, or from a workspace that still has them.

dvc.lock names the receipt of each stage by its md5, and the receipt names every file that the stage wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tasks.lineage.audit_files import object_path
from tasks.lineage.audit_lock import md5
from tasks.lineage.chain import RECEIPTS_FOLDER, files_of

# What an index needs of a run; the other files (checkpoints, tokens, logits) stay where they are.
NEEDED: Final = (
    "artifacts/data/sets/*.parquet", "artifacts/selection.json", "artifacts/report.html", "artifacts/baselines/quality.json",
    "artifacts/validation/summary.json", "artifacts/rounds/*/trained/model/*", "artifacts/rounds/*/trained/summary.json",
    "artifacts/rounds/*/trained/steps.jsonl", "artifacts/rounds/*/exported/model.onnx",
    "artifacts/rounds/*/exported/parity.json", "artifacts/rounds/*/evaluated/*", "artifacts/rounds/*/verdict.json",
    "artifacts/rounds/*/pruned/plan.json", "artifacts/rounds/*/trained/search.json",
)  # fmt: skip


def bring(
    lock: Mapping[str, Any], stages: Sequence[str], cache: Path, workspace: Path, into: Path
) -> dict[str, list[str]]:
    """Copy receipts and needed files of a run below `into`, each with the bytes of its md5; return stage -> what is missing."""
    missing: dict[str, list[str]] = {}
    for stage in stages:
        path = f"{RECEIPTS_FOLDER}/{stage}.json"
        outs = {out["path"]: out.get("md5") for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}
        receipt = _read(outs.get(path), path, cache, workspace)
        if receipt is None:
            missing[stage] = [path]
            continue
        wanted = {one: facts.get("md5") for one, facts in files_of(json.loads(receipt), "outputs").items()
                  if any(fnmatchcase(one, pattern) for pattern in NEEDED)}  # fmt: skip
        for name, digest in {path: outs[path], **wanted}.items():
            content = _read(digest, name, cache, workspace)
            if content is None:
                missing.setdefault(stage, []).append(name)
                continue
            place = into / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return missing


def _read(digest: str | None, path: str, cache: Path, workspace: Path) -> bytes | None:
    """Return the bytes with this md5, None when they are nowhere whole."""
    for place in (object_path(cache, digest), workspace / path) if digest else ():
        if place.is_file() and md5(content := place.read_bytes()) == digest:
            return content
    return None
