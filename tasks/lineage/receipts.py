"""Receipts: the facts of one execution of one stage."""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.lineage.files import digest
from tasks.params import Params

# ru_maxrss counts kilobytes on Linux and bytes on macOS.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def collect_receipt(
    *,
    stage: str,
    command: Sequence[str],
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    params: Params,
    started: float,
    startup_seconds: float,
    compute_seconds: float,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Return the receipt of a finished stage; times in seconds, `started` since the epoch."""
    facts = dict(facts)
    return {
        "stage": stage,
        "command": list(command),
        "inputs": {path.as_posix(): digest(path) for path in inputs},
        "outputs": {path.as_posix(): digest(path) for path in outputs},
        "params": params.model_dump(mode="json"),
        "seed": params.seed,
        "git": git_state(Path.cwd()),
        "environment": environment(),
        "threads": facts.pop("threads", None),
        "device": facts.pop("device", None),
        "precision": facts.pop("precision", None),
        "started_at": datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "startup_seconds": round(startup_seconds, 3),
        "compute_seconds": round(compute_seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(),
        "facts": facts,
    }


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES


def environment() -> dict[str, Any]:
    """Return Python, platform and the installed packages with the sha256 of their sorted `name==version` lines."""
    packages = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    listing = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "packages_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit, whether tracked files differ from it, and the sha256 of that difference (null when clean)."""

    def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)

    commit = git("rev-parse", "HEAD")
    # dvc.lock is written while the pipeline runs, so it would make every run look edited.
    diff = git("diff", "HEAD", "--", ".", ":(exclude)dvc.lock").stdout
    return {
        "commit": commit.stdout.decode().strip() if commit.returncode == 0 else None,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
    }
