"""What a run needs besides params, models and data: Git, whole records, servers that answer, folders that can be written.

Looked at before anything is started, and without the programs that would fail over it.
"""

from __future__ import annotations

import configparser
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tasks.errors import ParamsError, without_passwords
from tasks.files import read_json
from tasks.git import git, has_git, refusal, remotes
from tasks.params.file import read_yaml
from tasks.running.servers import ASK_SECONDS, PREFECT, REGISTRY, TRACKING, mlflow_faults, prefect_faults

PROBE_SECONDS: Final = 1.0
CONFLICT: Final = re.compile(r"^(<{7}|\|{7}|>{7})( |$)", re.MULTILINE)
# A file that Git merges -> what to do where it could not.
MERGED: Final = {
    ".dvc/config": "keep one side of each place and remove the marks",
    "params.yaml": "keep one side of each place and remove the marks",
    "dvc.yaml": "keep one side of each place and remove the marks",
    "dvc.lock": "take one side whole, `git checkout --ours dvc.lock` or --theirs; the run writes what differs anew",
    "sources.lock": "take one side whole, `git checkout --ours sources.lock` or --theirs; the run writes what differs anew",
    "decisions.jsonl": "take one side whole, `git checkout --ours decisions.jsonl`, then `compactlm history --repair`",
}
PORTS: Final = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
STORES: Final = "sqlite:////PATH/mlflow.db, http://HOST:PORT, or postgresql://, mysql:// or mssql:// with a host"
MLFLOW: Final = (TRACKING, REGISTRY)
WRITTEN: Final = ("TMPDIR", "TEMP", "TMP", "PREFECT_HOME", "DVC_SITE_CACHE_DIR")
READ: Final = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")  # where settings are looked for; a run writes nothing there
REMOTE_KEY: Final = "promotion.remote"


def surroundings_faults(workspace: Path, environ: Mapping[str, str], model: str | None = None) -> list[str]:
    """Return a sentence for each thing around a run that would stop it; never raises.

    A server that does not listen takes 1 s. `model`: the name of experiment and registered model, to which rights are asked.
    """
    probes = _Probes(environ, model)
    checks: list[Callable[[], list[str]]] = [
        lambda: place_faults(workspace, environ),
        lambda: [fault for name in MLFLOW for fault in _store_faults(name, environ, probes)],
        lambda: _server_faults(PREFECT, environ, probes),
    ]
    return [fault for check in checks for fault in check()] + probes.faults()


def place_faults(workspace: Path, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each thing that is wrong with the project's place: its name, Git, records in it, folders."""
    of_files = [fault for name in MERGED for fault in _file_faults(workspace, name)]
    return [*_name_faults(workspace), *_git_faults(workspace), *of_files, *_folder_faults(environ)]


def server_faults(variable: str, environ: Mapping[str, str], model: str | None = None) -> list[str]:
    """Return a sentence for each thing that is wrong with the server that one variable names; it may take some seconds."""
    probes = _Probes(environ, model)
    told = (_server_faults if variable == PREFECT else _store_faults)(variable, environ, probes)
    return told + probes.faults()


def surroundings_remarks(workspace: Path) -> list[str]:
    """Return a sentence for each thing that a run goes on without, and that its record will lack."""
    try:
        if not has_git(workspace):
            return [f"{workspace}: in no Git repository, so neither commit nor decisions can be recorded; `git init`"]
        if git(workspace, "rev-parse", "--verify", "HEAD").returncode == 0:
            return []
    except OSError:
        return []  # there is no Git, which is a fault
    return [
        f"{workspace}: Git has no commit yet, so none can be recorded and audits will find the code unknown; "
        "`git add -A && git commit`, then run"
    ]


def _name_faults(workspace: Path) -> list[str]:
    """Return whether the path of the project has signs that DVC's messages take for their own, or that end a line."""
    name = str(workspace.absolute())
    odd = sorted({sign for sign in name if sign in "{}" or not sign.isprintable()})
    words = ", ".join(map(repr, odd))
    return [f"{name!r}: the path of a project cannot have {words}; rename or move the folder"] if odd else []


def _git_faults(workspace: Path) -> list[str]:
    if not (workspace / ".dvc").is_dir():
        return [f"{workspace}: no folder .dvc, where DVC keeps what it knows; `dvc init`"]
    try:
        if has_git(workspace) or _is_without_git(workspace):
            return []
        why = refusal(workspace)
    except OSError as error:
        return [f"git: cannot be started: {error.strerror}; install Git"]
    return [why or f"{workspace}: no Git repository, in which code and decisions are recorded; `git init`, then commit all"]


def _is_without_git(workspace: Path) -> bool:
    """Return whether DVC was told to do without Git."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([workspace / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
        return config.getboolean("core", "no_scm", fallback=False)
    except (configparser.Error, ValueError):
        return False


def _file_faults(workspace: Path, name: str) -> list[str]:
    """Return whether a record in the workspace has marks of a conflict or cannot be read; one that is not there is no fault."""
    path = workspace / name
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        return [f"{name}: cannot be read: {error}; `git checkout {name}` brings back the committed one"]
    if marks := CONFLICT.search(text):
        line = text.count("\n", 0, marks.start()) + 1
        return [f"{name}: line {line} has a conflict mark of Git ({marks[1]}); {MERGED[name]}"]
    return _unreadable(path) if text and path.suffix == ".lock" else []


def _unreadable(path: Path) -> list[str]:
    """Return whether a lock file was changed so that it holds no record any more."""
    try:
        content = read_yaml(path) if path.name == "dvc.lock" else read_json(path)
    except (ParamsError, ValueError, RecursionError) as error:
        words = str(error).splitlines()[0]
    else:
        words = "" if isinstance(content, dict) else f"it holds {type(content).__name__}, no keys with values"
    advice = f"`git checkout {path.name}` brings back the committed one; or remove it, and the run writes it anew"
    return [f"{path.name}: {words}; {advice}"] if words else []


def _folder_faults(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that name something else than a folder, or one in which nothing can be written and must be."""
    return [
        f"{name}: {environ[name]!r} is {words}; give another folder, or unset it"
        for name in (*WRITTEN, *READ)
        if environ.get(name) and (words := _unusable(Path(environ[name]), write=name in WRITTEN))
    ]


def _unusable(folder: Path, write: bool) -> str:
    """Return why a folder cannot be used, empty when it can; one that is not there yet can be made."""
    try:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            return "no folder" if there == folder.absolute() else f"below {there}, which is no folder"
        if write:
            tempfile.TemporaryFile(dir=there).close()
    except (OSError, ValueError) as error:
        return f"a folder that cannot be written ({getattr(error, 'strerror', None) or error})"
    return ""


@dataclass
class _Probe:
    """What one server was asked, in a thread: `why` it cannot be reached, and what else stands in the way."""

    variable: str
    place: str
    advice: str
    why: str = f"no answer within {PROBE_SECONDS:.0f} s"
    faults: list[str] | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def sentences(self) -> list[str]:
        """Return what is wrong with the server, once it has been asked or has taken too long."""
        if not self.reached.wait(PROBE_SECONDS) or self.why:
            return [f"{self.variable}: {self.place} cannot be reached ({self.why}); {self.advice}"]
        if not self.done.wait(2 * ASK_SECONDS):
            return [f"{self.variable}: {self.place} takes connections and does not answer; {self.advice}"]
        return [f"{self.variable}: {fault}" for fault in self.faults or []]


@dataclass
class _Probes:
    """Servers that are asked all at once whether they are there and what our user may do, and what to say of the others."""

    environ: Mapping[str, str]
    model: str | None
    asked: list[_Probe] = field(default_factory=list)

    def ask(self, variable: str, host: str, port: int, advice: str) -> None:
        """Begin to ask a server that a variable names; whether it listens is left to a proxy where there is one."""
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        direct = not any(self.environ.get(name) or self.environ.get(name.upper()) for name in proxies)
        probe = _Probe(variable, f"{host}:{port}", advice)
        address = self.environ[variable]

        def work() -> None:
            probe.why = _connect(host, port) if direct else ""
            probe.reached.set()
            if not probe.why and address.startswith("http"):
                probe.faults = (
                    prefect_faults(address, self.environ)
                    if variable == PREFECT
                    else mlflow_faults(address, self.environ, self.model)
                )
            probe.done.set()

        # A name server may keep one waiting for much longer: such a thread is left behind.
        threading.Thread(target=work, daemon=True).start()
        self.asked.append(probe)

    def faults(self) -> list[str]:
        return [sentence for probe in self.asked for sentence in probe.sentences()]


def _connect(host: str, port: int) -> str:
    """Return why a server does not listen, empty when it does."""
    try:
        socket.create_connection((host, port), PROBE_SECONDS).close()
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def _server_faults(variable: str, environ: Mapping[str, str], probes: _Probes) -> list[str]:
    """Return what is wrong with the address of a server in a variable, which is asked when it is one."""
    address, advice = environ.get(variable, ""), f"start that server, or unset {variable}, and the run has one of its own"
    if not address:
        return []
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        return [f"{variable}: {without_passwords(address)!r} is no address ({without_passwords(str(error))}); {advice}"]
    if not host or not port or not (parts.scheme.startswith("http") or variable in MLFLOW):
        return [f"{variable}: {without_passwords(address)!r} is no address such as http://127.0.0.1:4200/api; {advice}"]
    probes.ask(variable, host, port, advice)
    return []


def _store_faults(variable: str, environ: Mapping[str, str], probes: _Probes) -> list[str]:
    """Return what is wrong with the address of MLflow's store."""
    address = environ.get(variable, "")
    scheme, _, rest = address.partition(":")
    kind = scheme.partition("+")[0]
    if not address or address.startswith("databricks") or kind == "databricks":
        return []
    if kind == "sqlite":
        place = Path(unquote(rest.removeprefix("///").removeprefix("file:").partition("?")[0]))
        words = "" if not place.name else "a folder" if place.is_dir() else _unusable(place.parent, write=True)
        return [f"{variable}: {address!r}: {str(place)!r} is {words}; allowed: {STORES}"] if words else []
    if kind in PORTS:
        return _server_faults(variable, environ, probes)
    if environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return []
    words = "is a folder of files, which MLflow keeps no records in any more"
    return [f"{variable}: {without_passwords(address)!r} {words}; allowed: {STORES}"]


def remote_faults(workspace: Path, remote: str | None) -> list[str]:
    """Return whether the repository has no remote of this name."""
    known = remotes(workspace)
    if remote is None or remote in known:
        return []
    words = ", ".join(known) or f"none, git remote add {remote} URL makes it"
    return [f"params.yaml: {REMOTE_KEY}: {remote!r} is no remote of this repository; allowed: null, {words}"]
