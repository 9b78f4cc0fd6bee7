from collections.abc import Mapping
from pathlib import Path


def surroundings_faults(workspace: Path, environ: Mapping[str, str]) -> list[str]:
    return []


def surroundings_remarks(workspace: Path) -> list[str]:
    return []
