"""Token ids of many texts as two flat arrays that can be memory-mapped.

Row i holds `ids[offsets[i]:offsets[i + 1]]`. Shapes: B rows of a batch, T tokens of its longest row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.errors import SourceError

Ints = NDArray[np.int64]
TEXTS_AT_A_TIME: Final = 2_000  # keeps memory flat whatever the number of texts


@dataclass(frozen=True)
class TokenSet:
    """The token ids of a set of texts; `ids` is int32 and flat, `offsets` int64 with one more entry than rows."""

    ids: NDArray[np.int32]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each row, int64."""
        return np.diff(self.offsets)


def load_tokenizer(file: Path, max_tokens: int | None = None) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json: it cuts texts at `max_tokens`, if given, and never fills them up.

    Raises SourceError for a file that the library cannot read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except BaseException as error:
        if type(error) is not Exception:  # the library raises no kind of its own
            raise
        raise SourceError(f"{file}: no tokenizer can be read: {error}; save the fast tokenizer with save_pretrained") from None
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: Sequence[str], special: bool) -> Iterator[list[int]]:
    """Return the ids of each text, with special tokens or without."""
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        batch = list(texts[start : start + TEXTS_AT_A_TIME])
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=special):
            yield encoding.ids


def tokenize(texts: Sequence[str], tokenizer_file: Path, max_tokens: int) -> TokenSet:
    """Return the ids of `texts` with special tokens, cut at `max_tokens`, by a `tokenizer.json`."""
    ids, offsets = array("i"), [0]
    for row in encoded(load_tokenizer(tokenizer_file, max_tokens), texts, special=True):
        ids.extend(row)
        offsets.append(len(ids))
    return TokenSet(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64))


def save_tokens(tokens: TokenSet, prefix: Path) -> None:
    """Write `prefix.ids.npy` and `prefix.offsets.npy`."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{prefix}.ids.npy", tokens.ids)
    np.save(f"{prefix}.offsets.npy", tokens.offsets)


def load_tokens(prefix: Path) -> TokenSet:
    """Return the tokens written by `save_tokens`, with the ids memory-mapped."""
    return TokenSet(np.load(f"{prefix}.ids.npy", mmap_mode="r"), np.load(f"{prefix}.offsets.npy"))


def collate(tokens: TokenSet, rows: Ints, pad_id: int = 0) -> tuple[Ints, Ints]:
    """Return ids and mask of shape (B, T), int64; mask is 1 on tokens and 0 on padding."""
    lengths = tokens.lengths[rows]
    columns = np.arange(int(lengths.max(initial=1)))
    mask_BT = columns[None, :] < lengths[:, None]
    positions_BT = np.where(mask_BT, tokens.offsets[rows][:, None] + columns[None, :], 0)
    ids_BT = np.where(mask_BT, np.asarray(tokens.ids)[positions_BT], pad_id)
    return ids_BT.astype(np.int64), mask_BT.astype(np.int64)


def rows_of(tokens: TokenSet, rows: Ints) -> TokenSet:
    """Return some rows of a set, in the order given."""
    ids = [np.asarray(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths[rows])]).astype(np.int64)
    return TokenSet(np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32), offsets)


def bucketed(lengths: Ints, batch_rows: int) -> list[Ints]:
    """Return batches of row numbers with similar lengths, shortest first; every row once."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]


def shuffled_buckets(lengths: Ints, batch_rows: int, rng: np.random.Generator, pool_batches: int = 50) -> list[Ints]:
    """Return one epoch of batches: rows shuffled, similar lengths together within pools, batches shuffled.

    Sorting pools of `pool_batches` batches, not the whole set, keeps the composition of batches random (the usual
    trade-off of length bucketing); the last batch of a pool may be short.
    """
    order = rng.permutation(len(lengths))
    batches: list[Ints] = []
    for start in range(0, len(order), batch_rows * pool_batches):
        pool = order[start : start + batch_rows * pool_batches]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_rows] for i in range(0, len(pool), batch_rows)]
    return [batches[i] for i in rng.permutation(len(batches))]
