"""The cached `TopK` of training blocks: written by `teacher_logits`, read from disk batch by batch by `distill`.

Letters: M cached blocks, T tokens of a block, K pieces kept of each place, R = K + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data.blocks import Rows
from tasks.distillation.top_k import TopK
from tasks.errors import DataError
from tasks.lineage.files import file_sha256, read_json

IDS_FILE: Final = "top_ids.npy"  # uint16 or int32 (M, T - 1, K)
SHARES_FILE: Final = "top_log_shares.npy"  # float16 (M, T - 1, R), nats
NUMBERS_FILE: Final = "top_blocks.npy"  # int64 (M,), which of the training blocks they are
LARGEST_SHORT: Final = np.iinfo(np.uint16).max
BEFORE_FLOAT16_ENDS: Final = -60_000.0  # exp of it is 0 either way, and it is finite


class TopKFiles:
    """Where the stage writes, batch by batch, so memory does not grow with the blocks."""

    def __init__(self, folder: Path, numbers: Rows, places: int, top_k: int, vocabulary: int) -> None:
        """Make the files of `numbers`, training blocks with so many predicted places each."""
        kind = np.uint16 if vocabulary - 1 <= LARGEST_SHORT else np.int32
        np.save(folder / NUMBERS_FILE, numbers)
        shape = (len(numbers), places)
        self._ids: Any = np.lib.format.open_memmap(folder / IDS_FILE, mode="w+", dtype=kind, shape=(*shape, top_k))
        self._shares: Any = np.lib.format.open_memmap(
            folder / SHARES_FILE, mode="w+", dtype=np.float16, shape=(*shape, top_k + 1)
        )

    def write(self, first: int, parts: Iterable[TopK]) -> None:
        """Write what was found for the next blocks, from the `first` one on."""
        found = list(parts)
        ids = torch.cat([part.ids_NK for part in found]).cpu().numpy()
        shares = torch.cat([part.log_shares_NR for part in found]).clamp(min=BEFORE_FLOAT16_ENDS).cpu().numpy()
        places = self._ids.shape[1]
        blocks = slice(first, first + len(ids) // places)
        self._ids[blocks] = ids.reshape(-1, *self._ids.shape[1:])
        self._shares[blocks] = shares.reshape(-1, *self._shares.shape[1:])

    def close(self) -> None:
        """Bring everything to disk."""
        self._ids.flush()
        self._shares.flush()


class CachedTopK:
    """What the teacher says of the cached training blocks."""

    def __init__(self, folder: Path, blocks_file: Path, top_k: int) -> None:
        """Raise DataError unless the cache has `top_k` pieces of the blocks in this very file."""
        known = read_json(folder / "fingerprint.json").get("top_k")
        wanted = {"top_k": top_k, "blocks_sha256": file_sha256(blocks_file)}
        if known != wanted:
            raise DataError(
                f"{folder}: caches {known or 'no pieces'}, and {wanted} is wanted; run `dvc repro teacher_logits`. "
                "A student with fewer tokens than its teacher has other blocks: it needs distill.cache: null"
            )
        self._ids = np.load(folder / IDS_FILE, mmap_mode="r")
        self._shares = np.load(folder / SHARES_FILE, mmap_mode="r")
        numbers: NDArray[np.int64] = np.load(folder / NUMBERS_FILE)
        self._places = {int(number): place for place, number in enumerate(numbers)}
        self._folder = folder

    def check(self, batches: Iterable[Rows]) -> None:
        """Raise DataError when a batch has a block that is not cached."""
        missing = {int(row) for rows in batches for row in rows} - set(self._places)
        if missing:
            raise DataError(
                f"{self._folder}: training block {min(missing)} and {len(missing) - 1} others are not cached; set distill.cache."
                "tokens to the largest train_tokens of the rounds, or run `dvc repro teacher_logits`"
            )

    def of(self, rows: Rows, device: torch.device) -> TopK:
        """Return what is cached of some training blocks, place by place, with shares that sum to one."""
        where = [self._places[int(row)] for row in rows]
        ids = np.asarray(self._ids[where], dtype=np.int64).reshape(-1, self._ids.shape[-1])
        shares = np.asarray(self._shares[where], dtype=np.float32).reshape(-1, self._shares.shape[-1])
        log_shares_NR = torch.from_numpy(shares).to(device).log_softmax(dim=-1)  # float16 rounds the sum off one
        return TopK(torch.from_numpy(ids).to(device), log_shares_NR)
