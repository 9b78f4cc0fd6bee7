"""The servers, `compactlm schedule` and `compactlm watch` as units of systemd: started again always, and shut in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from infra.cluster import postgres_program
from infra.forms.shared import LIMITS, Limits, Places
from infra.stack import Process
from tasks.errors import ResourceError

USER: Final = "compactlm"
SETTINGS: Final = "/etc/compactlm"  # where the files of `secrets` go, with mode 0600
TARGET: Final = "compactlm.target"
START_SECONDS: Final = 180
HARDENED: Final = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateTmp": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "read-only",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "LockPersonality": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "UMask": "0077",
}
# Of servers alone: a run needs the devices of its machine, and more processes than one would guess.
OF_SERVERS: Final = {"PrivateDevices": "yes", "ProtectProc": "invisible", "TasksMax": "512"}
Section = Mapping[str, str]


def postgres() -> str:
    """Return the program of PostgreSQL on this machine, or where Debian has it."""
    try:
        return str(postgres_program("postgres").resolve())  # its other programs are beside it
    except ResourceError:
        return "/usr/lib/postgresql/15/bin/postgres"


def files(processes: Sequence[Process], places: Places) -> dict[str, str]:
    """Return name -> content."""
    units = {unit_name(process.name): _server(process, places) for process in processes}
    target = _unit({"Unit": {"Description": "compactlm: the servers of a team", "Wants": " ".join(units)}, "Install": _INSTALL})
    return {
        TARGET: target,
        **units,
        unit_name("schedule"): _project("schedule", 'schedule --cron "0 2 * * *" --audit-cron "0 6 * * *"', "runner", places),
        unit_name("watch"): _project("watch", "watch --port 8765", "watch", places),
    }


def unit_name(name: str) -> str:
    """Return the name of the unit of a process."""
    return f"compactlm-{name}.service"


_INSTALL: Final = {"WantedBy": "multi-user.target"}


def _server(process: Process, places: Places) -> str:
    is_database = process.name == "postgres"
    needs = {} if is_database else {"Requires": unit_name("postgres"), "After": unit_name("postgres")}
    return _unit(
        {
            "Unit": {"Description": f"compactlm: {process.name}", "PartOf": TARGET, **needs},
            "Service": {
                **(_database if is_database else _started)(process, f"{places.code}/.venv/bin/python"),
                **_service(process.name, process.env, LIMITS[process.name]),
                "TimeoutStartSec": str(START_SECONDS + 20),
                "WorkingDirectory": places.code,
                "StateDirectory": "compactlm",
                "RuntimeDirectory": f"compactlm-{process.name}",
                **HARDENED,
                **OF_SERVERS,
            },
            "Install": {"WantedBy": TARGET},
        }
    )


def _started(process: Process, python: str) -> dict[str, str]:
    """Return how a server is started, and that it counts as started once it answers."""
    ready = [python, "-m", "infra.ready", process.health, str(START_SECONDS)]
    return {"ExecStart": _words([python, "-m", *process.command]), "ExecStartPost": _words(ready)}


def _database(process: Process, python: str) -> dict[str, str]:
    """Return how PostgreSQL is started; the first time its cluster and the databases are made."""
    command, address = process.command[2:], urlsplit(process.health)
    ready = [f"{Path(command[0]).parent}/pg_isready", "-q", "-h", str(address.hostname), "-p", str(address.port)]
    databases = [python, "-m", "infra.cluster", "databases", str(address.port)]
    until = f"for _ in $(seq {START_SECONDS}); do {shlex.join(ready)} && exec {shlex.join(databases)}; sleep 1; done; exit 1"
    return {
        "ExecStartPre": _words([python, "-m", "infra.cluster", command[command.index("-D") + 1]]),
        "ExecStart": _words(command),
        "ExecStartPost": _words(["/bin/sh", "-c", until]),
        "KillSignal": "SIGINT",  # it ends its clients and itself, and loses nothing
    }


def _words(command: Sequence[str]) -> str:
    """Return a command as systemd reads it, in which no sign stands for anything."""
    return shlex.join(command).replace("%", "%%").replace("$", "$$")


def _project(name: str, words: str, role: str, places: Places) -> str:
    """Return the unit of a command that stays, in the project and as somebody in a role."""
    return _unit(
        {
            "Unit": {
                "Description": f"compactlm: {name}, of {places.workspace}",
                "After": f"network-online.target {TARGET}",
                "Wants": "network-online.target",
            },
            "Service": {
                "ExecStart": f"{places.code}/.venv/bin/compactlm {words}",
                **_service(role, {"PATH": f"{places.code}/.venv/bin:/usr/local/bin:/usr/bin:/bin"}, None),
                "WorkingDirectory": places.workspace,
                "ReadWritePaths": places.workspace,
                "KillMode": "mixed",  # it ends its children itself
                "TimeoutStopSec": "60",
                **HARDENED,
            },
            "Install": _INSTALL,
        }
    )


def _service(secrets: str, env: Mapping[str, str], limits: Limits | None) -> dict[str, str]:
    shown = " ".join(f'"{name}={value}"' for name, value in env.items())
    return {
        "Type": "exec",
        "User": USER,
        "Group": USER,
        **({"Environment": shown.replace("%", "%%")} if shown else {}),
        "EnvironmentFile": f"{SETTINGS}/{secrets}.env",
        "Restart": "always",
        "RestartSec": "10",
        **({"CPUQuota": f"{limits.cores * 100:.0f}%", "MemoryMax": f"{limits.memory}M"} if limits else {}),
    }


def _unit(sections: Mapping[str, Section]) -> str:
    lines = {name: "".join(f"{key}={value}\n" for key, value in section.items()) for name, section in sections.items()}
    return "\n".join(f"[{name}]\n{text}" for name, text in lines.items())
