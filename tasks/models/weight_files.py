"""What the safetensors files of a model folder hold, read from their headers alone: names, kinds of numbers and shapes.

Source of the format: github.com/huggingface/safetensors, README: eight bytes tell how long the JSON header is, and each entry of
it where the bytes of a weight lie behind it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from tasks.errors import SourceError

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
POINTER: Final = b"version https://git-lfs"  # what lies in place of a file that Git LFS has not fetched
LONGEST_HEADER: Final = 100_000_000  # the library reads no longer one


class Stored(NamedTuple):
    """The kind of numbers of a weight, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; SourceError where there is none, or one nested too deep to be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise SourceError(f"{path}: it is nested too deep to be read; give the file that save_pretrained writes") from None
    except (ValueError, OSError) as error:
        raise SourceError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path}: a JSON object is needed; give the file that save_pretrained writes")
    return content


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, as stock classes choose them; SourceError where one is missing."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        raise SourceError(f"{folder}: neither {WHOLE} nor {INDEX} is there; give the folder that save_pretrained writes")
    parts = read_object(folder / INDEX).get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise SourceError(f"{folder / INDEX}: weight_map must give the file of each weight; copy it again")
    names = sorted(set(parts.values()))
    if strange := [name for name in names if name != Path(name).name or name == ".."]:
        raise SourceError(f"{folder / INDEX}: weight_map names {strange[0]!r}; the files of weights lie beside it, by name alone")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise SourceError(
            f"{folder}: {', '.join(missing)}: missing, {len(names) - len(missing)} of {len(names)} files of weights are there; "
            f"copy every file that {INDEX} names"
        )
    return [folder / name for name in names]


def stored_weights(folder: Path) -> dict[str, Stored]:
    """Return what each weight of a model folder is; SourceError where a file is missing, cut short or none of safetensors."""
    stored: dict[str, Stored] = {}
    for path in weight_files(folder):
        stored |= _header(path)
    return stored


def _header(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(len(POINTER))
        if begin == POINTER:
            raise SourceError(f"{path}: {size} bytes, a pointer of Git LFS in place of the weights; run: git lfs pull")
        length = int.from_bytes(begin[:8], "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise SourceError(
                f"{path}: {size:,} bytes, and its header says that it is {length:,} long: cut short, or no safetensors file; "
                "copy it again"
            )
        file.seek(8)
        text = file.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        stored = {name: Stored(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
        needed = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise SourceError(f"{path}: its header is no list of weights, so it is no safetensors file; copy it again") from None
    if needed != size:
        word = "cut short" if needed > size else "followed by bytes of no weight"
        raise SourceError(f"{path}: {word}: it has {size:,} bytes, and its header tells of {needed:,}; copy it again")
    return stored
