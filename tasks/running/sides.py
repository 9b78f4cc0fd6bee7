"""Both sides of each server that a project names: which version is here and which is there, and what our user may do there.

Asked over HTTP, or of PostgreSQL itself; no client is imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, Final
from urllib.parse import urlsplit

from tasks.errors import without_passwords
from tasks.running.machine import Finding
from tasks.running.servers import (
    DELETED,
    NONE,
    PREFECT_AUTH,
    SUBJECTS,
    TOKEN,
    Asked,
    ask_mlflow,
    ask_prefect,
    mlflow_login,
    reason,
    rights_at,
    rights_faults,
    version_of,
    who_asks,
)

CONNECT_SECONDS: Final = 3
# Variables that may name a database: of clients, and of the servers themselves where the doctor is asked beside them.
DATABASES: Final = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_BACKEND_STORE_URI",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
)
POSTGRES: Final = "postgresql"


def mlflow_sides(about: str, address: str, environ: Mapping[str, str], model: str | None) -> list[Finding]:
    """Return the versions of MLflow here and there, and our rights at a server with which nothing else is wrong."""
    server = ask_mlflow(address, environ)
    _, there = server.get("version")
    return [_versions(about, "mlflow", address, str(there)), *_rights(server, environ, model, about)]


def prefect_sides(about: str, address: str, environ: Mapping[str, str]) -> list[Finding]:
    """Return the versions of Prefect here and there, and whether it has taken our password."""
    _, there = ask_prefect(address, environ).get("admin/version")
    taken = f"takes the password of {PREFECT_AUTH}" if environ.get(PREFECT_AUTH) else "asks for no password"
    may = Finding(f"{about}: rights", "fine", f"{taken}; whoever is let in may do everything there", facts={"password": taken})
    return [_versions(about, "prefect", address, str(there)), *([] if environ.get("PREFECT_API_KEY") else [may])]


def _versions(about: str, package: str, address: str, there: str) -> Finding:
    """Return a finding of both versions: a server answers older clients, and no newer ones."""
    here = metadata.version(package)
    says = f"{address} answers, {there} there and {here} here"
    ours, theirs, facts = version_of(here), version_of(there), {"there": there, "here": here}
    if ours and theirs and ours > theirs:
        do = f"upgrade the server first, as infra/README.md says, or: pip install '{package}=={there}'"
        return Finding(about, "warning", f"{says}, and what is here is newer than its server", do, facts)
    return Finding(about, "fine", says, facts=facts)


def _rights(server: Asked, environ: Mapping[str, str], model: str | None, about: str) -> Iterator[Finding]:
    about, user = f"{about}: rights", mlflow_login(environ)[0]
    if not user:
        known = f"it takes {who_asks(environ)}; whether that may write, the first run shows"
        yield Finding(about, "fine", known if environ.get(TOKEN) else "it asks for no user")
        return
    if model is None:
        yield Finding(about, "fine", f"it knows {who_asks(environ)}", facts={"user": user})
        return
    rights = rights_at(server, environ, model)
    facts = {"user": user, **{kind: right or "not there yet" for kind, right in rights.items()}}
    words = ", ".join(f"{facts[kind]} on the {SUBJECTS[kind]} {model}" for kind in rights)
    faults = rights_faults(rights, environ, model)
    if not faults:
        yield Finding(about, "fine", f"{who_asks(environ)}: {words}; that is enough for a run", facts=facts)
    elif set(rights.values()) & {NONE, DELETED}:
        yield from (_refused(about, f"{without_passwords(server.address)} {fault}", facts) for fault in faults)
    else:  # of readers and promoters, who run nothing
        lacks = " and ".join(f"EDIT on the {SUBJECTS[kind]}" for kind, right in rights.items() if right == "READ")
        do = f"enough to read and watch; for `compactlm run` {lacks} is missing: ask whoever manages that server"
        yield Finding(about, "warning", f"{who_asks(environ)}: {words}", do, facts)


def _refused(about: str, sentence: str, facts: Mapping[str, str]) -> Finding:
    says, _, do = sentence.rpartition("; " if "; " in sentence else ": ")
    return Finding(about, "wrong", says, do, facts)


# PostgreSQL


def databases(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variable -> address for each variable of the environment that names a database of PostgreSQL."""
    found = {name: environ.get(name, "") for name in DATABASES}
    return {name: address for name, address in found.items() if address.startswith(POSTGRES)}


def database_sides(variable: str, address: str) -> list[Finding]:
    """Return the version of PostgreSQL at an address, or why it does not tell."""
    about, parts = "PostgreSQL", urlsplit(address)
    place = f"{variable}: {parts.hostname}:{parts.port or 5432}{parts.path}"
    try:
        import psycopg2
    except ModuleNotFoundError:
        return [Finding(about, "wrong", f"{place}: its driver is not installed", "pip install 'compactlm[server]'")]
    try:
        version, client = _ask_postgres(psycopg2, f"{POSTGRES}://{address.partition('://')[2]}")
    except psycopg2.Error as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return [Finding(about, "wrong", f"{place}: {reason(line)}", f"start it, or mend user and password in {variable}")]
    says = f"{place} answers, {version} there, psycopg2 {client} here"
    return [Finding(about, "fine", says, facts={"there": version, "here": client})]


def _ask_postgres(driver: Any, address: str) -> tuple[str, str]:
    connection = driver.connect(address, connect_timeout=CONNECT_SECONDS)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            return str(cursor.fetchone()[0]), str(driver.__version__).split()[0]
    finally:
        connection.close()
