"""Files as facts: sorted JSON, sha256 digests, and writes that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

READ_BYTES: Final = 1 << 20
LARGEST_JSON_BYTES: Final = 1 << 28  # of a file that is read whole; the largest honest ones are tokenizers of some 30 MB


class UnreadableError(json.JSONDecodeError):
    """JSON that the library takes, or could take on a larger machine, and we do not; it has no line to be named."""

    def __init__(self, words: str) -> None:
        super().__init__(words, "", 0)

    def __str__(self) -> str:
        return self.msg


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted JSON, whole or not at all; NaN and infinity are refused with ValueError."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def parse_json(content: str | bytes) -> Any:
    """Return what JSON says; ValueError where it is none, or nested too deeply to be read."""
    try:
        return json.loads(content)
    except RecursionError:
        raise UnreadableError("it is nested too deeply to be read") from None


def parse_object(content: str | bytes) -> dict[str, Any]:
    """Return a JSON object; ValueError where it is none."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise UnreadableError("a JSON object is needed")
    return value


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; ValueError, which notes the path, where it is none, or far too large."""
    try:
        if (size := path.stat().st_size) > LARGEST_JSON_BYTES:
            raise UnreadableError(f"{size:,} bytes are too many")
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        error.add_note(str(path))
        raise


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; a last line cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [parse_json(line) for line in lines[:-1] if line]


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path, without: Collection[str] = ()) -> dict[str, Any]:
    """Return `sha256` and `size_bytes` of a file, and for a directory also of each of its `files`, but for those of some names.

    A directory's sha256 is that of its sorted lines `name<TAB>sha256`, so it does not depend on times or owners.
    """
    if path.is_file():
        return {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    return _of_folder({name: digest(path / name) for name in _names(path) if name not in without})


def full_digest(path: Path) -> dict[str, Any]:
    """Return what `digest` returns and, for the path and each of its files, `md5`: DVC's name for the same bytes."""
    if path.is_file():
        # One read for both: the file is in memory after the first, but not when it is larger than that.
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while part := file.read(READ_BYTES):
                sha256.update(part)
                md5.update(part)
        return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest(), "size_bytes": path.stat().st_size}
    whole = _of_folder({name: full_digest(path / name) for name in _names(path)})
    return {**whole, "md5": listing_md5({name: entry["md5"] for name, entry in whole["files"].items()})}


def without_links(path: Path, scratch: Path) -> Path:
    """Return a file or folder itself, or its copy below `scratch` where it has links: DVC makes them if `cache.type` says so."""
    if not any(place.is_symlink() for place in (path, *path.rglob("*"))):
        return path
    copy = Path(tempfile.mkdtemp(dir=scratch)) / path.name
    return Path(shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy))


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")


def _of_folder(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "sha256": listing_sha256({name: entry["sha256"] for name, entry in files.items()}),
        "size_bytes": sum(entry["size_bytes"] for entry in files.values()),
        "files": files,
    }


def listing_sha256(files: Mapping[str, str]) -> str:
    """Return a directory's sha256 from those of its files: the digest of the sorted lines `name<TAB>sha256`."""
    return hashlib.sha256("".join(f"{name}\t{files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def listing_md5(files: Mapping[str, str]) -> str:
    """Return DVC's name of a directory, `<md5>.dir`, from the md5 of each of its files."""
    listing = json.dumps([{"md5": files[name], "relpath": name} for name in sorted(files)], sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def project_of(start: Path) -> Path | None:
    """Return the project that holds `start`: the nearest folder upwards with dvc.yaml and params.yaml; None outside of one."""
    folders = (start.absolute(), *start.absolute().parents)
    return next((folder for folder in folders if (folder / "dvc.yaml").exists() and (folder / "params.yaml").exists()), None)
