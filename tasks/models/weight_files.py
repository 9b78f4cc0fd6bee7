"""What the safetensors files of a model folder hold, read from their headers alone: names, kinds of numbers and shapes.

Source of the format: github.com/huggingface/safetensors, README: eight bytes tell how long the JSON header is, and each entry of
it where the bytes of a weight lie behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tasks.errors import SourceError
from tasks.files import UnreadableError, parse_object, read_json

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
POINTER: Final = b"version https://git-lfs"  # what lies in place of a file that Git LFS has not fetched
LONGEST_HEADER: Final = 32_000_000  # of a model of some 200,000 weights; its text takes ten times the memory when it is read
BITS: Final = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}


class Stored(NamedTuple):
    """The kind of numbers of a weight, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; SourceError where there is none, or one nested too deep to be read."""
    try:
        content = read_json(path)
    except UnreadableError as error:
        raise SourceError(f"{path}: {error}; give the file that save_pretrained writes") from None
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
        entries = parse_object(text)
        entries.pop("__metadata__", None)
        stored = {name: Stored(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
        places = sorted((*map(int, entry["data_offsets"]), name) for name, entry in entries.items())
        needed = 8 + length + _end_of_weights(path, places, stored)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise SourceError(f"{path}: its header is no list of weights, so it is no safetensors file; copy it again") from None
    if needed != size:
        word = "cut short" if needed > size else "followed by bytes of no weight"
        raise SourceError(f"{path}: {word}: it has {size:,} bytes, and its header tells of {needed:,}; copy it again")
    return stored


def _end_of_weights(path: Path, places: Sequence[tuple[Any, ...]], stored: Mapping[str, Stored]) -> int:
    """Return where the last weight ends, by (begin, end, name) in order; SourceError where they overlap, or sizes contradict."""
    end = 0
    for begin, after, name in places:
        weight = stored[name]
        bits = math.prod(weight.shape) * BITS.get(weight.dtype, 0)
        if begin != end or after < begin or min(weight.shape, default=0) < 0 or (bits and bits != 8 * (after - begin)):
            raise SourceError(
                f"{path}: {name}: its header gives {weight.dtype} {list(weight.shape)} the bytes {begin:,} to {after:,}, and the "
                f"one before ends at {end:,}; weights neither overlap nor leave room, and have the size of their shape; copy it"
            )
        end = after
    return end
