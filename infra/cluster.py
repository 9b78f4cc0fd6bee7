"""A cluster of PostgreSQL, `python -m infra.cluster DATA`, and its databases, `... databases PORT`, made when there are none yet.

The password of its owner is that of POSTGRES_PASSWORD, as in PostgreSQL's own image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.mlflow_server import write_private
from infra.program import as_user
from tasks.children import LOOPBACK
from tasks.errors import ResourceError

PASSWORD: Final = "POSTGRES_PASSWORD"
OWNER: Final = "compactlm"  # of the databases, and the user of Prefect's one password
DATABASES: Final = ("mlflow", "mlflow_auth", "prefect")
INITDB: Final = ("-A", "scram-sha-256", "-E", "UTF8", "--locale=C")
PLACES: Final = (Path("/usr/lib/postgresql"), Path("/usr/pgsql"), Path("/opt/homebrew/opt/postgresql"))


def postgres_program(name: str) -> Path:
    """Return a program of PostgreSQL: of PATH, or the newest in the usual places; ResourceError where there is none."""
    found = shutil.which(name)
    if found and name != "psql":  # which may be a wrapper that looks for a cluster
        return Path(found)
    for place in PLACES:
        for path in sorted(place.parent.glob(f"{place.name}*/**/bin/{name}"), reverse=True):
            return path
    raise ResourceError(f"{name}: PostgreSQL is not installed here, or its programs are not on PATH")


def make_cluster(data: Path, password: str, *more: str) -> None:
    """Make a cluster in a folder where there is none; `more` are further words for initdb."""
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    told = data.parent / "password"
    write_private(told, password)
    if as_user("postgres"):
        shutil.chown(data, "postgres", "postgres")
        shutil.chown(told, "postgres", "postgres")
    try:
        _call([str(postgres_program("initdb")), "-D", str(data), "-U", OWNER, *INITDB, *more, f"--pwfile={told}"])
    finally:
        told.unlink()


def make_databases(port: int, password: str) -> None:
    """Make the databases that are not there yet, of a server on this machine."""
    env = {**os.environ, "PGPASSWORD": password}
    where = ["-h", LOOPBACK, "-p", str(port), "-U", OWNER]
    known = [str(postgres_program("psql")), *where, "-d", "postgres", "-Atc", "SELECT datname FROM pg_database"]
    there = subprocess.run(known, env=env, capture_output=True, text=True, check=True).stdout.split()
    for name in DATABASES:
        if name not in there:
            subprocess.run([str(postgres_program("createdb")), *where, name], env=env, check=True)


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **as_user("postgres"))  # type: ignore[call-overload]
    if done.returncode:
        raise ResourceError(f"{command[0]}: {done.stderr.strip()}; as root, its folder must be one that `postgres` can reach")


def main() -> None:
    """Make the cluster, or the databases of one that runs."""
    password, words = os.environ.get(PASSWORD, ""), sys.argv[1:]
    if not password or not words:
        sys.exit(
            f"usage: {PASSWORD}=... python -m infra.cluster DATA, then, while it runs: python -m infra.cluster databases PORT"
        )
    try:
        if words[0] == "databases":
            make_databases(int(words[1]), password)
        else:
            make_cluster(Path(words[0]), password)
    except ResourceError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
