"""Receipts: the facts of one execution of one stage, enough to check it and to do it again."""

from __future__ import annotations

import hashlib
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import WEIGHTS, GitState
from tasks.errors import UserError
from tasks.files import file_sha256, full_digest
from tasks.git import edits, git, refusal
from tasks.params.base import Params

LOCK_FILE: Final = "requirements.lock"
# A larger difference is known by its digest alone: nobody reviews it, and every receipt of the run repeats it.
MAX_DIFF_BYTES: Final = 64 * 1024
CPU_FILE: Final = Path("/proc/cpuinfo")
VECTOR_SETS: Final = ("sse4", "avx", "amx", "fma", "asimd", "sve", "bf16", "i8mm")  # beginnings of their names

# ru_maxrss counts kilobytes on Linux and bytes on macOS.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Execution:
    """A stage that has run: what it was asked, the files that it read and wrote, and times in seconds; `started` of the epoch."""

    stage: str
    command: Sequence[str]
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    code: Mapping[str, str]  # path -> sha256 when it was loaded
    git: GitState  # when the stage began
    started: float
    startup_seconds: float
    compute_seconds: float


def collect_receipt(done: Execution, params: Params, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the receipt of a finished stage, whose `facts` are what the stage itself tells."""
    facts = dict(facts)
    digests = {path.as_posix(): full_digest(path) for path in done.inputs}
    return {
        "stage": done.stage,
        "command": list(done.command),
        "inputs": digests,
        "outputs": {path.as_posix(): full_digest(path) for path in done.outputs},
        "parent_models": parent_models(digests),
        "code": dict(done.code),
        "params": params.model_dump(mode="json"),
        "seed": params.seed,
        "git": done.git,
        "environment": environment(),
        "threads": facts.pop("threads", None),
        "device": facts.pop("device", None),
        "precision": facts.pop("precision", None),
        "processes": facts.pop("processes", 1),
        "backend": facts.pop("backend", None),
        "started_at": datetime.fromtimestamp(done.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "startup_seconds": round(done.startup_seconds, 3),
        "compute_seconds": round(done.compute_seconds, 3),
        "peak_memory_bytes": peak_memory_bytes(),
        "facts": facts,
    }


def parent_models(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return path -> sha256 of the weights among the inputs: the models this stage started from or learnt from."""
    found = {}
    for path, entry in inputs.items():
        for name in (WEIGHTS, f"model/{WEIGHTS}"):
            if name in entry.get("files", {}):
                found[f"{path}/{name}"] = entry["files"][name]["sha256"]
    return found


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES


def environment() -> dict[str, Any]:
    """Return Python, platform, processor, and the installed packages with the sha256 of their sorted `name==version` lines.

    `lock_sha256` is the digest of the workspace's requirements.lock, null when it has none.
    """
    packages = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    listing = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": packages,
        "packages_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "lock_sha256": file_sha256(Path(LOCK_FILE)) if Path(LOCK_FILE).exists() else None,
    }


def processor() -> str:
    """Return the kind of processor and, on Linux, those of its instruction sets by which libraries choose how to add up.

    The same work on another one may round otherwise, e.g. `x86_64 amx_bf16 avx2 avx512f`.
    """
    words: set[str] = set()
    if CPU_FILE.is_file():
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
        words = {word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()}
    return " ".join([platform.machine(), *sorted(word for word in words if word.startswith(VECTOR_SETS))])


def git_state(folder: Path) -> GitState:
    """Return commit, whether tracked files differ from it, and that difference with its sha256 (null when clean).

    `diff` is null as well when it is larger than MAX_DIFF_BYTES. Files that Git does not know are not in it. UserError where
    Git refuses the repository.
    """
    commit = git(folder, "rev-parse", "--verify", "HEAD")
    if commit.returncode != 0 and (words := refusal(folder)):
        raise UserError(words)  # "no commit, no edits" would be said of edited files too
    # dvc.lock is written while the pipeline runs, and decisions.jsonl after it: they would make every run look edited.
    diff = edits(folder, ["dvc.lock", "decisions.jsonl"])
    kept = diff.decode("utf-8", errors="replace") if diff and len(diff) <= MAX_DIFF_BYTES else None
    return {
        "commit": commit.stdout.decode().strip() if commit.returncode == 0 else None,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        "diff": kept if kept is not None and kept.encode() == diff else None,
    }
