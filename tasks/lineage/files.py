"""Files as facts: sorted JSON, sha256 digests, and writes that are whole or absent."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted JSON, whole or not at all; NaN and infinity are refused with ValueError."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; a last line cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> dict[str, Any]:
    """Return `sha256` and `size_bytes` of a file, and for a directory also of each of its `files`.

    A directory's sha256 is that of its sorted lines `name<TAB>sha256`, so it does not depend on times or owners.
    """
    if path.is_file():
        return {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
    files = {name: digest(path / name) for name in names}
    listing = "".join(f"{name}\t{files[name]['sha256']}\n" for name in names)
    return {
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "size_bytes": sum(entry["size_bytes"] for entry in files.values()),
        "files": files,
    }
