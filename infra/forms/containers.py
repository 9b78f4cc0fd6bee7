"""What compose and Kubernetes have in common: images, users, and how a process of the description is started in a container."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from infra.cluster import DATABASES, INITDB, OWNER
from infra.stack import Process

DATABASES_SQL: Final = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)  # in a new cluster


def image(process: Process) -> str:
    """Return the image of a process: ours, of infra/Containerfile, or PostgreSQL's own."""
    return "postgres:15" if process.name == "postgres" else "compactlm:latest"


def user(process: Process) -> int:
    """Return the number of the user that a process runs as, who is not root: that of its image."""
    return 999 if process.name == "postgres" else 10001


def arguments(process: Process) -> list[str]:
    """Return what is started in the container."""
    if process.name == "postgres":  # its image has a user of its own, and makes the cluster
        return list(process.command[2:])
    return ["python", "-m", *process.command]


def check_command(process: Process) -> list[str]:
    """Return the command by which a container knows that its process is ready."""
    address = urlsplit(process.health)
    if address.scheme == "postgresql":
        return ["pg_isready", "-q", "-h", str(address.hostname), "-p", str(address.port), "-U", OWNER]
    return ["python", "-m", "infra.ready", process.health]


def port(process: Process) -> int:
    """Return the port that a process listens at."""
    return int(urlsplit(process.health).port or 0)


def volume(process: Process) -> str:
    """Return the folder of what a process keeps."""
    return "/var/lib/postgresql/data" if process.name == "postgres" else f"/var/lib/compactlm/{process.name}"


def environment(process: Process) -> dict[str, str]:
    """Return the variables without secrets; PostgreSQL's image needs some to make the cluster as the description has it."""
    if process.name != "postgres":
        return {**process.env, "HOME": "/tmp"}
    return {"POSTGRES_USER": OWNER, "POSTGRES_DB": "postgres", "POSTGRES_INITDB_ARGS": " ".join(INITDB)}
