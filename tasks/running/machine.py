"""What this machine has for a run: Python and packages, cores, memory, disk, devices; each told as fine, a warning or wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import psutil
from packaging.requirements import Requirement

OWN_NAME: Final = "compactlm"
NEWEST_TRIED: Final = (3, 13)
LITTLE_MEMORY: Final = 2e9  # bytes; the default run takes about so much
LITTLE_DISK: Final = 5e9
LEAST_DISK: Final = 200e6  # which no run does without, however small its model
SHOWN: Final = ("torch", "transformers", "mlflow", "prefect", "dvc")
DEFAULT_RUN: Final = "the run of the shipped params.yaml reads it; for your own data it is not needed"

# In a process of its own: torch takes seconds to load, and one that is broken may end whoever loads it.
PROGRAM: Final = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from tasks.models.devices import has_fast_bf16, lacks
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if cuda else []
memory = [torch.cuda.mem_get_info(n)[0] for n in range(len(names))]
kind = "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu"
print(json.dumps({
    "kind": kind, "names": names, "free_bytes": memory, "built_for": torch.version.cuda,
    "bf16": {name: has_fast_bf16(torch.device(name)) for name in dict.fromkeys(("cpu", kind))},
    "lacks": {name: lacks(name) for name in dict.fromkeys(("cpu", kind))},
}))
"""

State = Literal["fine", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, how it is, and what to do, which is empty where all is fine.

    `facts`: what it says, for programs.
    """

    about: str
    state: State
    says: str
    do: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


# Python and packages


def software(project: Path | None) -> Iterator[Finding]:
    """Yield whether Python and the packages are within the ranges of pyproject.toml, of the project or of what is installed."""
    python, wanted = _ranges(project)
    version = ".".join(map(str, sys.version_info[:3]))
    if not Requirement(f"python{python}").specifier.contains(version):
        yield Finding("python", "wrong", f"{version}, and {python} is needed", "make the environment with another Python")
    elif sys.version_info[:2] > NEWEST_TRIED:
        newest = ".".join(map(str, NEWEST_TRIED))
        yield Finding("python", "warning", f"{version} is newer than what was tried", f"Python 3.11 to {newest} work")
    else:
        yield Finding("python", "fine", f"{version} ({sys.executable})")
    found = {each.name: _installed(each.name) for each in wanted}
    others = [finding for each in wanted if (finding := _outside(each, found[each.name]))]
    yield from others
    named = ", ".join(f"{name} {found[name]}" for name in SHOWN if found.get(name))
    words = f"{len(found) - len(others)} of {len(found)} are within their ranges: {named}, ..."
    yield Finding("packages", "fine", words)


def _ranges(project: Path | None) -> tuple[str, list[Requirement]]:
    """Return the versions of Python, and the packages without extras, that a run needs."""
    file = project / "pyproject.toml" if project else None
    own = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file and file.is_file() else {}
    if own.get("name") == OWN_NAME:
        python, lines = str(own["requires-python"]), list(own["dependencies"])
    else:
        python, lines = str(metadata.metadata(OWN_NAME)["Requires-Python"]), metadata.requires(OWN_NAME) or []
    every = [Requirement(line) for line in lines]
    return python, [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _outside(wanted: Requirement, version: str | None) -> Finding | None:
    """Return what is wrong with a package, None where it is within its range."""
    if version is not None and wanted.specifier.contains(version, prereleases=True):
        return None
    is_data = any(part.operator == "==" for part in wanted.specifier)
    says = "is not installed" if version is None else f"{version} is outside of {wanted.specifier}"
    do = f"pip install '{wanted.name}{wanted.specifier}'" + (f"; {DEFAULT_RUN}" if is_data else "")
    return Finding(f"package {wanted.name}", "warning" if is_data else "wrong", says, do)


# Cores, memory, disk


def resources(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Yield cores, memory, and the free disk of folders by what they are for; of several on one disk, the first."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or usable, usable)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    words = f"{cores} of {psutil.cpu_count(logical=False) or cores} physical ones may be used; load {load:.1f}"
    busy = load > cores + 0.5
    do = "other programs work beside: a run takes longer, and its latencies are doubtful; wait for them" if busy else ""
    yield Finding("cores", "warning" if busy else "fine", words, do)
    memory = psutil.virtual_memory()
    words = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    little = memory.available < LITTLE_MEMORY
    yield Finding("memory", "warning" if little else "fine", words, "close other programs" if little else "")
    seen: set[int] = set()
    for use, folder in folders.items():
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if (disk := there.stat().st_dev) not in seen:
            seen.add(disk)
            free = shutil.disk_usage(there).free
            state: State = "wrong" if free < LEAST_DISK else "warning" if free < LITTLE_DISK else "fine"
            do = "free some; `dvc gc` removes what no commit needs" if state != "fine" else ""
            yield Finding(f"disk of the {use}", state, f"{free / 1e9:.1f} GB are free ({there})", do)


# Devices


def ask_torch() -> subprocess.Popen[str]:
    """Return a process that tells what torch sees; `devices` waits for it."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def devices(process: subprocess.Popen[str], until: float, compiles: object) -> Iterator[Finding]:
    """Yield which device torch sees, whether bf16 is fast there, and whether torch.compile can work.

    `until` is the time (`time.monotonic`) to which is waited; `compiles` runtime.compile of params.yaml, None if unknown.
    """
    try:
        printed, said = process.communicate(timeout=max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield Finding(
            "device",
            "warning",
            "torch did not load in time, so nobody knows what it sees",
            "ask again when the machine is less busy",
        )
        return
    try:
        facts = json.loads(printed)
    except ValueError:
        last = next(iter(reversed(said.strip().splitlines())), f"it ended with code {process.returncode}")
        yield Finding(
            "device", "wrong", f"torch cannot be loaded: {last[:200]}", "install torch anew: pip install --force-reinstall torch"
        )
        return
    yield from _devices(facts)
    yield _compiler(facts["lacks"], facts["kind"], compiles)


def _devices(facts: Mapping[str, Any]) -> Iterator[Finding]:
    kind, fast = facts["kind"], facts["bf16"]
    if kind == "cuda":
        cards = [f"{name} ({free / 1e9:.0f} GB free)" for name, free in zip(facts["names"], facts["free_bytes"], strict=True)]
        yield Finding("device", "fine", f"cuda: {', '.join(cards)}")
    elif shutil.which("nvidia-smi"):
        built = f"is built for CUDA {facts['built_for']}" if facts["built_for"] else "is built for CPUs alone"
        do = "see `nvidia-smi`, and install the torch of its CUDA version"
        yield Finding("device", "warning", f"{kind}; there is an NVIDIA driver, and torch, which {built}, sees no GPU", do)
    else:
        yield Finding("device", "fine", kind)
    if fast[kind]:
        yield Finding("bf16", "fine", f"fast on this {kind}, so precision: auto takes it; answers are computed in fp32")
    else:
        yield Finding(
            "bf16", "fine", f"no units for it in this {kind}, so precision: auto takes fp32; trainings take about twice as long"
        )


def _compiler(lacks: Mapping[str, str | None], kind: str, compiles: object) -> Finding:
    missing = lacks[kind]
    if missing is None:
        return Finding("torch.compile", "fine", "what it needs is there")
    if compiles is True:
        return Finding("torch.compile", "wrong", f"runtime.compile: true needs {missing}", "install it, or write auto or false")
    if compiles is False:
        return Finding("torch.compile", "fine", f"lacks {missing}; runtime.compile: false does without")
    return Finding("torch.compile", "warning", f"lacks {missing}; runtime.compile: auto does without", "install it for speed")
