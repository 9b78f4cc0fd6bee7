"""The tiny model exported once for all tests that read the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder the export stage wrote for the tiny model, and the facts it returned."""
    from tasks import export
    from tests.integration.tiny_run import tiny_params, write_tiny_sets

    folder = tmp_path_factory.mktemp("export")
    write_tiny_sets(folder / "sets")
    facts = export.run(tiny_params(), model=tiny_model, sets=folder / "sets", out=folder / "exported")
    return folder / "exported", facts
