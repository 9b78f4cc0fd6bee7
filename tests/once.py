"""What takes long to make and is only read, made once for all processes that test side by side."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` has filled: by this process, or by the one that came first. It is for reading."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    with FileLock(shared.with_suffix(".lock")):
        if not shared.with_suffix(".made").exists():
            shutil.rmtree(shared, ignore_errors=True)  # what one that failed has left
            shared.mkdir()
            make(shared)
            shared.with_suffix(".made").touch()
    return shared
