"""What a GGUF file says of itself, read within its bounds: a cut or crafted file is refused before a library believes it.

Source of the format: github.com/ggml-org/ggml, docs/gguf.md: magic, version, counts, values by key, descriptions of tensors,
padding, then the tensors.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Final, NoReturn

from tasks.errors import SourceError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
STRING, ARRAY, UINT32 = 8, 9, 4
ALIGNMENT: Final = "general.alignment"
USUAL_ALIGNMENT: Final = 32
MOST_DIMENSIONS: Final = 4
# Of a tensor's type: how many numbers a block has, and its bytes. Of others the place alone is looked at.
BLOCKS: Final = {
    0: (1, 4),
    1: (1, 2),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    30: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
}


def check_gguf(path: Path) -> None:
    """Raise SourceError unless counts, lengths and places in the header of a GGUF file fit into the file."""
    if not path.stat().st_size:
        raise SourceError(f"{path}: empty; copy it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _Header(path, content).check()


class _Header:
    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self._content, self._size, self._at = path, content, len(content), 0

    def check(self) -> None:
        """Read the header to its end; SourceError where it leads out of the file."""
        if self._take(len(MAGIC), "its first bytes") != MAGIC:
            self._refuse("does not begin as GGUF")
        version = self._number("<I", "its version")
        if version not in VERSIONS:
            self._refuse(f"is of version {version} of the format; read are {' and '.join(map(str, VERSIONS))}")
        tensors, values = self._count(24, "tensors"), self._count(12, "values")
        alignment = USUAL_ALIGNMENT
        for _ in range(values):
            key = self._string("a key")
            kind = self._number("<I", f"the type of {key}")
            if key == ALIGNMENT and kind == UINT32:
                alignment = self._number("<I", key)
            else:
                self._skip(kind, key)
        if not 0 < alignment <= self._size:
            self._refuse(f"{ALIGNMENT} is {alignment}")
        places = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        for name, offset, length in places:
            if start + offset + length > self._size:
                self._refuse(f"cut short: it has {self._size:,} bytes, and {name} ends at {start + offset + length:,}")

    def _tensor(self) -> tuple[str, int, int]:
        """Return name, offset behind the header and bytes of a tensor."""
        name = self._string("the name of a tensor")
        count = self._number("<I", f"the dimensions of {name}")
        if count > MOST_DIMENSIONS:
            self._refuse(f"{name} has {count} dimensions; at most {MOST_DIMENSIONS} are possible")
        numbers = math.prod(self._number("<Q", f"the shape of {name}") for _ in range(count))
        kind, offset = self._number("<I", f"the type of {name}"), self._number("<Q", f"the place of {name}")
        block, width = BLOCKS.get(kind, (1, 0))
        return name, offset, -(-numbers // block) * width

    def _skip(self, kind: int, key: str) -> None:
        if kind == STRING:
            self._string(key)
        elif kind == ARRAY:
            of, count = self._number("<I", f"the type in {key}"), self._number("<Q", f"the length of {key}")
            if of == STRING:
                self._require(8 * count, key)
                for _ in range(count):
                    self._string(key)
            elif of in WIDTHS:
                self._pass(WIDTHS[of] * count, key)
            else:
                self._refuse(f"{key} is a list of type {of}, which the format does not have or nobody writes")
        elif kind in WIDTHS:
            self._pass(WIDTHS[kind], key)
        else:
            self._refuse(f"{key} is of type {kind}, which the format does not have")

    def _count(self, least: int, what: str) -> int:
        """Return a number of things that each take at least so many bytes."""
        count = self._number("<Q", f"how many {what} it has")
        self._require(least * count, f"{count:,} {what}")
        return count

    def _string(self, what: str) -> str:
        return self._take(self._number("<Q", f"the length of {what}"), what).decode(errors="replace")

    def _number(self, form: str, what: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form), what))[0])

    def _take(self, count: int, what: str) -> bytes:
        self._pass(count, what)
        return self._content[self._at - count : self._at]

    def _pass(self, count: int, what: str) -> None:
        self._require(count, what)
        self._at += count

    def _require(self, count: int, what: str) -> None:
        if count > self._size - self._at:
            self._refuse(f"cut short, or no such file: it has {self._size:,} bytes, and {what} would end at {self._at + count:,}")

    def _refuse(self, words: str) -> NoReturn:
        raise SourceError(f"{self.path}: {words}; copy it again")
