"""What all forms have in common: what a process may take, where units find their files, and how YAML is written."""

from __future__ import annotations

from io import StringIO
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML


class Limits(NamedTuple):
    """What a process may take: cores, and memory in MiB."""

    cores: float
    memory: int


# Resident and idle, measured: MLflow 540 MB with one worker, Prefect 220 MB.
LIMITS: Final = {"postgres": Limits(1.0, 1024), "mlflow": Limits(2.0, 2048), "prefect": Limits(2.0, 1536)}


class Places(NamedTuple):
    """Where units find the code and its environment, and the project that `compactlm schedule` serves."""

    code: str = "/opt/compactlm"
    workspace: str = "/srv/compactlm"


def as_yaml(*documents: Any) -> str:
    """Return records as YAML, in their order."""
    yaml, text = YAML(), StringIO()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.dump_all(documents, text)
    return text.getvalue()
