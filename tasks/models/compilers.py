"""Whether torch.compile can work on a machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path


def lacks(device_type: str) -> str | None:
    """Return what torch.compile needs for such a device and this machine does not have; None where it has everything.

    For a CPU it writes C++ that is built against Python's headers, for CUDA it needs Triton.
    """
    if device_type == "cpu":
        usual = "clang++" if sys.platform == "darwin" else "cl" if sys.platform == "win32" else "g++"
        compiler = os.environ.get("CXX") or usual
        if shutil.which(compiler) is None:
            return f"a C++ compiler ({compiler} is not on the PATH; CXX names another one)"
        headers = Path(sysconfig.get_path("include"))
        return None if (headers / "Python.h").exists() else f"Python's headers ({headers}/Python.h)"
    if device_type == "cuda":
        return None if importlib.util.find_spec("triton") is not None else "the package triton"
    return f"a device of another kind than {device_type}"
