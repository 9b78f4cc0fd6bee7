"""Starts MLflow's server with the settings of its users: `python -m infra.mlflow_server ARGUMENTS`, those of `mlflow server`.

With --upgrade alone it brings both of its databases to what the installed MLflow wants, and ends.

MLflow reads the address of its users' database, which has a password, from a file alone. It is written here from the environment,
readable to us alone, so that a secret comes the same way to every process.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

AUTH_DATABASE: Final = "COMPACTLM_AUTH_DATABASE"
STORE: Final = "MLFLOW_BACKEND_STORE_URI"
CONFIG: Final = "MLFLOW_AUTH_CONFIG_PATH"


def settings(environ: Mapping[str, str]) -> str:
    """Return the settings of MLflow's users."""
    lines = ["[mlflow]", "default_permission = NO_PERMISSIONS", f"database_uri = {environ[AUTH_DATABASE].replace('%', '%%')}"]
    lines += ["admin_username = admin", "authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
    # A password is hashed for each request otherwise, a run makes hundreds, and a hash takes tenths of a second.
    lines += ["auth_cache_ttl_seconds = 60", ""]
    return "\n".join(lines)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def main() -> None:
    """Write the settings and become `mlflow server`, or upgrade its databases."""
    missing = [name for name in (STORE, AUTH_DATABASE, CONFIG, "MLFLOW_AUTH_ADMIN_PASSWORD") if not os.environ.get(name)]
    if missing:
        sys.exit(f"error: {', '.join(missing)}: not set; see the files in `secrets` that `python -m infra.render` makes")
    if sys.argv[1:] == ["--upgrade"]:
        upgrade(os.environ)
        return
    write_private(Path(os.environ[CONFIG]), settings(os.environ))
    _become("mlflow", "server", *sys.argv[1:])


def upgrade(environ: Mapping[str, str]) -> None:
    """Bring the database of runs and models, and that of users, to the schema of the installed MLflow."""
    for words in (
        ("mlflow", "db", "upgrade", environ[STORE]),
        ("mlflow.server.auth", "db", "upgrade", "--url", environ[AUTH_DATABASE]),
    ):
        try:
            _become(*words)
        except SystemExit as ending:
            if ending.code:
                sys.exit(
                    f"error: {' '.join(words[:3])} ended with {ending.code}; is PostgreSQL running, and nothing else at work?"
                )


def _become(module: str, *words: str) -> None:
    """Run a module in this process, whose own words, a password perhaps among them, nobody else on the machine sees."""
    sys.argv[:] = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
