"""The members of a team on servers that run: `python -m infra.members FOLDER --project=MODEL`, where `infra.render` made FOLDER.

Makes MLflow's users (reader, runner, promoter), and experiment and registered model of a project with their rights. Done again it
adds what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra.render import in_containers, pages_of, parsed
from infra.stack import ROLES, Stack
from tasks.errors import UserError

OPTIONS: Final = ("--project", "--mlflow", "--prefect")
USAGE: Final = "usage: python -m infra.members FOLDER --project=MODEL [--mlflow=https://HOST] [--prefect=https://HOST]"


def make_members(folder: Path, options: Mapping[str, str]) -> list[str]:
    """Return a line for each role: the file that its members source."""
    if not (folder / "settings.json").exists():
        raise UserError(f"{folder / 'settings.json'}: there is none; `python -m infra.render {folder} --as=FORM` makes it")
    if not options.get("--project"):
        raise UserError(f"--project: which? the registry.model_name of params.yaml; {USAGE}")
    stack = Stack(folder, site=in_containers(pages_of(options)))
    stack.make_users()
    stack.prepare_project(options["--project"])
    return [f"as {role}: . {folder / f'{role}.env'}" for role in ROLES]


def main() -> None:
    """Make users, rights and the files that members source."""
    try:
        lines = make_members(*parsed(sys.argv[1:], OPTIONS, USAGE))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: MLflow does not answer ({error}); start the servers first, or say where they are with --mlflow")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
