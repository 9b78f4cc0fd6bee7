"""params.yaml as it was when a decision was made."""

from __future__ import annotations

import io
import json
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.lineage.git import snapshot
from tasks.params import Params
from tasks.registry.decisions import Decision


def params_then(workspace: Path, entry: Decision, scratch: Path) -> Params | str:
    """Return the params of the time of a decision, or why they cannot be known."""
    state = entry["git"]
    if state["commit"] is None or (state["dirty"] and state.get("diff") is None):
        return "params.yaml of that time is not kept"
    files = snapshot(workspace, state["commit"], state.get("diff"), scratch)
    content = files.read(["params.yaml"]).get("params.yaml") if files else None
    if content is None:
        return f"Git cannot give params.yaml of commit {state['commit']}"
    try:
        return Params.model_validate_json(json.dumps(YAML(typ="safe").load(io.BytesIO(content))))
    except ValidationError as error:
        return f"params.yaml of that time is not of this version: {error.errors()[0]['msg']}"
    except (YAMLError, ValueError) as error:
        return f"params.yaml of that time cannot be read: {error}"
