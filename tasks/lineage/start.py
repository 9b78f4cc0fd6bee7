"""What comes before a run: params and sources are looked at, so that bad input stops here and leaves nothing half-made."""

from __future__ import annotations

import logging
from pathlib import Path

from tasks.errors import ParamsError
from tasks.params import AnyParams, load_params


def find_workspace(start: Path) -> Path:
    """Return the project that holds `start`: the nearest folder upwards with dvc.yaml and params.yaml."""
    for folder in (start.absolute(), *start.absolute().parents):
        if (folder / "dvc.yaml").exists() and (folder / "params.yaml").exists():
            return folder
    raise ParamsError(f"{start}: no dvc.yaml and params.yaml here or above; change into a compactlm project")


def check_run(params: AnyParams, workspace: Path) -> None:
    """Raise a UserError when params, sources or free disk space would stop the run later."""
    from tasks.models.preflight import check

    check(params, workspace)


def prepare_run(workspace: Path, *, checked: bool = False) -> AnyParams:
    """Return the params of a run whose input has been checked (unless it was already), with sources.lock up to date."""
    from tasks.data.sources import refresh_lock

    params = load_params(workspace / "params.yaml")
    if not checked:
        check_run(params, workspace)
    for line in refresh_lock(params.sources(), workspace / "sources.lock"):
        logging.getLogger("compactlm").info("sources.lock: %s", line)
    return params
