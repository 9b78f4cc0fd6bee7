"""The code that a process has loaded, known by its bytes from the moment at which they were read.

Whoever looks at the files later may see others: somebody pulls or edits while a stage works for hours. So a digest of all code is
taken when this module is imported, which an entry point does before the rest, and again when a stage begins.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("flows", "tasks")
TEMPLATES: Final = "templates"  # folder of the pages that a room fills in
MAIN: Final = "tasks/__main__.py"  # which calls itself __main__ when it runs
SHOWN: Final = 5  # files in a sentence

Code = Mapping[str, str]  # path below the project -> sha256 of its bytes


def code_on_disk() -> dict[str, str]:
    """Return the modules and templates of this project as they lie there now."""
    found = {}
    for folder in FOLDERS:
        for place, _, names in os.walk(ROOT / folder):
            for name in names:
                if name.endswith(".py") or Path(place).name == TEMPLATES:
                    path = Path(place, name)
                    found[path.relative_to(ROOT).as_posix()] = _sha256(path)
    return found


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:  # an editor takes a file away before it puts the new one there
        return f"cannot be read: {os.strerror(error.errno or 0)}"


AT_IMPORT: Final[Code] = code_on_disk()


def loaded_files() -> list[str]:
    """Return the paths of the modules of this project that the process has loaded, and of the templates beside them."""
    known = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.partition(".")[0] in FOLDERS}
    places = {Path(place) for place in known if place}
    places |= {path for folder in {place.parent for place in places} for path in (folder / TEMPLATES).glob("*")}
    return sorted(place.relative_to(ROOT).as_posix() for place in places if place.is_relative_to(ROOT))


def changed_since_import() -> list[str]:
    """Return which loaded files have other bytes on disk than when this process began: what it does is not what they say."""
    return changed(AT_IMPORT, code_on_disk(), loaded_files())


def changed(before: Code, after: Code, paths: Iterable[str]) -> list[str]:
    """Return those of some paths, files or folders of them, that differ."""
    wanted = tuple(paths)
    differ = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    return [path for path in differ if any(path == one or path.startswith(f"{one}/") for one in wanted)]


def listed(paths: Iterable[str]) -> str:
    """Return paths as words, at most SHOWN of them."""
    names = list(paths)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
