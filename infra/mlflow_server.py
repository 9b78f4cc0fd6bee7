"""Starts MLflow's server with the settings of its users: `python -m infra.mlflow_server ARGUMENTS`, those of `mlflow server`.

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
    """Write the settings and become `mlflow server`."""
    missing = [name for name in (AUTH_DATABASE, CONFIG, "MLFLOW_AUTH_ADMIN_PASSWORD") if not os.environ.get(name)]
    if missing:
        sys.exit(f"error: {', '.join(missing)}: not set; see the files in `secrets` that `python -m infra.render` makes")
    write_private(Path(os.environ[CONFIG]), settings(os.environ))
    sys.argv[:] = ["mlflow", "server", *sys.argv[1:]]
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
