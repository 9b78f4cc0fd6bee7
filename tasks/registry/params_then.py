"""params.yaml and other files as they were when a decision was made."""

from __future__ import annotations

import io
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.lineage.git import snapshot
from tasks.params import AnyParams
from tasks.params_recorded import recorded_params
from tasks.registry.decisions import Decision


class BrokenObjectError(ValueError):
    """Git has a file and cannot read it any more."""


def file_then(workspace: Path, entry: Decision, name: str, scratch: Path) -> bytes | None:
    """Return a file as Git recorded it for a decision, None where Git has none; BrokenObjectError where it has a broken one."""
    state = entry["git"]
    files = snapshot(workspace, state["commit"], state.get("diff"), scratch)
    if files is None or name not in files.blobs:
        return None
    content = files.read([name]).get(name)
    if content is None:
        raise BrokenObjectError(f"Git cannot read {name} of commit {state['commit']} any more")
    return content


def params_then(workspace: Path, entry: Decision, scratch: Path) -> AnyParams | str:
    """Return the params of the time of a decision, or why they cannot be known; raises as `file_then`."""
    state = entry["git"]
    if state["commit"] is None or (state["dirty"] and state.get("diff") is None):
        return "params.yaml of that time is not kept"
    content = file_then(workspace, entry, "params.yaml", scratch)
    if content is None:
        return f"Git cannot give params.yaml of commit {state['commit']}"
    try:
        return recorded_params(YAML(typ="safe").load(io.BytesIO(content)))
    except ValidationError as error:
        return f"params.yaml of that time is not of this version: {error.errors()[0]['msg']}"
    except (YAMLError, ValueError) as error:
        return f"params.yaml of that time cannot be read: {error}"
