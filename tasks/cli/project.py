"""The project that a command works in. What is heavy is imported when a command asks for it: `--help` needs none of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.errors import UserError

if TYPE_CHECKING:
    from tasks.params.base import Params
    from tasks.registry.tracking import Tracker


def find_project() -> Path:
    """Return the project that holds the current folder; UserError outside of one."""
    from tasks.running.start import find_workspace

    return find_workspace(Path.cwd())


def params_of(workspace: Path) -> Params:
    """Return what params.yaml says; UserError when it does not describe a run."""
    from tasks.params.file import load_params

    return load_params(workspace / "params.yaml")


class Registry(NamedTuple):
    """The store of a project, its params, and the name of its registered model."""

    tracker: Tracker
    params: Params
    name: str


def open_registry() -> Registry:
    """Return the registry of this project; UserError when no run has made one yet."""
    workspace = find_project()
    params = params_of(workspace)
    require_store(workspace)
    from tasks.registry.tracking import Tracker

    return Registry(Tracker(workspace, params.registry.model_name), params, params.registry.model_name)


def require_store(workspace: Path) -> None:
    """Raise UserError when no model can be registered yet."""
    from tasks.registry.tracking import store_exists

    if not store_exists(workspace):
        raise UserError(f"{workspace}: no model is registered yet; `compactlm run` makes some")
