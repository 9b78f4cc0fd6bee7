"""Everything around a project, looked at within some seconds: the machine, Git, and each server that the project names.

Servers are asked in threads, torch in a process of its own; who has not answered in time is told so and left behind.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tasks.errors import UserError, without_passwords
from tasks.git import git, has_git
from tasks.params.base import Params
from tasks.params.file import load_params
from tasks.running import machine
from tasks.running.dvc import ask_remote, cache_folder, remote_addresses
from tasks.running.machine import Finding
from tasks.running.servers import PREFECT, REGISTRY, TRACKING
from tasks.running.sides import database_sides, databases, mlflow_sides, prefect_sides
from tasks.running.surroundings import place_faults, remote_faults, server_faults, surroundings_remarks

MERGED_BY: Final = "compactlm"  # what .gitattributes calls it
SECONDS: Final = 4.0  # of all, from the start of the command
SERVERS: Final = {TRACKING: "MLflow", REGISTRY: "MLflow's registry", PREFECT: "Prefect"}


@dataclass
class _Asked:
    """A question that is asked in a thread: what to say if there is no answer in time."""

    about: str
    late: Finding
    found: list[Finding] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def findings(self, until: float) -> list[Finding]:
        """Return the answer, or that there was none until then."""
        return self.found if self.done.wait(max(0.0, until - time.monotonic())) else [self.late]


def examine(
    workspace: Path | None, environ: Mapping[str, str], torch: subprocess.Popen[str], started: float
) -> Iterator[Finding]:
    """Yield what was found of the machine and, of a project, of all that it names. No password is in it.

    `torch` is what `ask_torch` of `tasks.running.machine` began, `started` when (`time.monotonic`) the command did.
    """
    for finding in _examined(workspace, environ, torch, started + SECONDS):
        yield replace(finding, says=without_passwords(finding.says), do=without_passwords(finding.do))


def _examined(
    workspace: Path | None, environ: Mapping[str, str], torch: subprocess.Popen[str], until: float
) -> Iterator[Finding]:
    params, faults = _params(workspace)
    asked = list(_servers(environ, params)) + ([] if workspace is None else [_remotes(workspace)])
    yield from machine.software(workspace)
    yield from machine.resources({} if workspace is None else {"project": workspace, "DVC cache": _cache(workspace)})
    yield from _git(workspace)
    yield from faults
    if workspace is None:
        yield Finding("project", "warning", "no dvc.yaml and params.yaml here or above", "change into a compactlm project")
    else:
        yield from _place(workspace, environ, params)
    yield from machine.devices(torch, until, params.runtime.compile if params else None)
    for each in asked:
        yield from each.findings(until)
    yield from _without_servers(workspace, environ)


def _cache(workspace: Path) -> Path:
    try:
        return cache_folder(workspace)
    except Exception as error:
        if not type(error).__module__.startswith("dvc"):
            raise
        return workspace


# The project


def _params(workspace: Path | None) -> tuple[Params | None, list[Finding]]:
    if workspace is None:
        return None, []
    try:
        params = load_params(workspace / "params.yaml")
    except UserError as error:
        first, *others = str(error).splitlines()
        more = f", and {len(others)} more faults" if others else ""
        return None, [Finding("params.yaml", "wrong", first + more, "`compactlm check` says all")]
    return params, [Finding("params.yaml", "fine", f"describes a run ({params.task}, {len(params.rounds)} rounds)")]


def _git(workspace: Path | None) -> Iterator[Finding]:
    place = workspace or Path.cwd()
    try:
        version = git(place, "--version").stdout.decode().strip().removeprefix("git version ")
    except OSError as error:
        yield Finding("git", "wrong", f"cannot be started: {error.strerror}", "install Git")
        return
    if workspace is None or not has_git(workspace):
        yield Finding("git", "fine", version)  # what else there is to say is said of the project's place
        return
    branch = git(workspace, "symbolic-ref", "--short", "HEAD").stdout.decode().strip() or "no branch"
    changed = len(git(workspace, "status", "--porcelain").stdout.splitlines())
    files = "1 file differs" if changed == 1 else f"{changed} files differ"
    words = f", {files} from the commit, which a run records" if changed else ", nothing uncommitted"
    yield Finding("git", "fine", f"{version}, on {branch}{words}")
    asked = git(workspace, "check-attr", "merge", "--", "dvc.lock").stdout.decode().strip().endswith(f": {MERGED_BY}")
    if asked and git(workspace, "config", f"merge.{MERGED_BY}.driver").returncode:
        program = Path(sys.executable).with_name("compactlm")
        driver = shlex.quote(f'"{program}" merge-lock %O %A %B %P')
        says = "dvc.lock is to be merged by stages, and Git is not told how"
        yield Finding("git", "warning", says, f"git config merge.{MERGED_BY}.driver {driver}")


def _place(workspace: Path, environ: Mapping[str, str], params: Params | None) -> Iterator[Finding]:
    remote = params.promotion.remote if params else None
    faults = [*place_faults(workspace, environ), *remote_faults(workspace, remote)]
    remarks = surroundings_remarks(workspace)
    yield from (_sentence("project", "wrong", fault) for fault in faults)
    yield from (_sentence("project", "warning", remark) for remark in remarks)
    if not faults and not remarks:
        yield Finding("project", "fine", f"{workspace}: records can be read, folders written")


def _sentence(about: str, state: machine.State, words: str) -> Finding:
    """Return a sentence of ours, which ends with what to do after its last semicolon."""
    says, semicolon, do = words.rpartition("; ")
    return Finding(about, state, says if semicolon else words, do if semicolon else "")


# Servers and remotes


def _ask(about: str, late: Finding, question: Callable[[], list[Finding]]) -> _Asked:
    asked = _Asked(about, late)

    def work() -> None:
        asked.found = question()
        asked.done.set()

    threading.Thread(target=work, daemon=True).start()
    return asked


def _servers(environ: Mapping[str, str], params: Params | None) -> Iterator[_Asked]:
    model = params.registry.model_name if params else None
    for variable, about in SERVERS.items():
        if address := environ.get(variable):
            words = f"{variable}: {address} gives no answer within {SECONDS:.0f} s"
            late = Finding(about, "wrong", words, f"start that server, or name another one in {variable}")
            yield _ask(about, late, lambda v=variable, a=about: _server(v, a, environ, model))  # type: ignore[misc]
    for variable, address in databases(environ).items():
        late = Finding("PostgreSQL", "wrong", f"{variable}: no answer within {SECONDS:.0f} s", "start that server")
        yield _ask("PostgreSQL", late, lambda v=variable, a=address: database_sides(v, a))  # type: ignore[misc]


def _server(variable: str, about: str, environ: Mapping[str, str], model: str | None) -> list[Finding]:
    address = environ[variable]
    if faults := server_faults(variable, environ):
        return [_sentence(about, "wrong", fault) for fault in faults]
    if variable == PREFECT:
        return prefect_sides(about, address, environ)
    if not address.startswith("http"):
        kind = "answers" if urlsplit(address).hostname else "is there"
        return [Finding(about, "fine", f"{address} {kind}")]
    return mlflow_sides(about, address, environ, model)


def _without_servers(workspace: Path | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what stands in for the servers that no variable names."""
    if not environ.get(TRACKING) and workspace is not None:
        there = (workspace / ".compactlm").is_dir() and any((workspace / ".compactlm").rglob("mlflow.db"))
        words = "a database in the project, .compactlm/" + ("" if there else "; the first run makes it")
        yield Finding("MLflow", "fine", f"{TRACKING} is not set: {words}")
    if not environ.get(PREFECT):
        yield Finding("Prefect", "fine", f"{PREFECT} is not set: each run starts a server of its own")


def _remotes(workspace: Path) -> _Asked:
    late = Finding(
        "DVC remote", "wrong", f"no answer within {SECONDS:.0f} s", "see `dvc remote list`, and whether its server is up"
    )
    return _ask("DVC remote", late, lambda: _asked_remotes(workspace))


def _asked_remotes(workspace: Path) -> list[Finding]:
    try:
        addresses = remote_addresses(workspace)
    except Exception as error:
        if not type(error).__module__.startswith("dvc"):
            raise
        words = next(iter(str(error).splitlines()), type(error).__name__)
        return [Finding("DVC", "wrong", words, "mend .dvc/config; `dvc config --list` shows it")]
    if not addresses:
        return [
            Finding("DVC remote", "fine", "none: files are kept on this machine alone; `dvc remote add` names one for a team")
        ]
    return [_remote(workspace, name, address) for name, address in addresses.items()]


def _remote(workspace: Path, name: str, address: str) -> Finding:
    about, said = f"DVC remote {name}", ask_remote(workspace, name)
    if said not in ("there", "empty"):
        return Finding(about, "wrong", f"{address}: {said}", "mend that; until then `dvc push` and `dvc pull` fail")
    place = Path(address)
    if not place.is_absolute():
        empty = " nothing yet, or there is no such bucket" if said == "empty" else ""
        return Finding(
            about, "fine", f"{address}: can be read{empty and ':' + empty}; whether it can be written the first `dvc push` shows"
        )
    there = next(each for each in (place, *place.parents) if each.exists())
    if not os.access(there, os.W_OK):
        return Finding(
            about, "warning", f"{address}: can be read, not written", "ask its owner for the right, or only `dvc pull`"
        )
    return Finding(about, "fine", f"{address}: can be read and written" + (", and holds nothing yet" if said == "empty" else ""))
