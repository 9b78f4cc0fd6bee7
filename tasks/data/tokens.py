"""Token ids of many texts, or pairs of texts, as two flat arrays that can be memory-mapped.

Row i holds `ids[offsets[i]:offsets[i + 1]]`. Shapes: B rows of a batch, T tokens of its longest row.

A pair is one row of tokens, as the tokenizer writes pairs, and cut `longest_first`: tokens go from the end of the longer text
until the row fits, so neither is dropped whole, and stock tokenizers do the same with `truncation=True`. Where the tokenizer
numbers the two texts, a third array holds the type of each token.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tasks.data.pairs import Text
from tasks.errors import SourceError

Ints = NDArray[np.int64]
TEXTS_AT_A_TIME: Final = 2_000  # keeps memory flat whatever the number of texts


@dataclass(frozen=True)
class TokenSet:
    """The token ids of a set of texts; `ids` is int32 and flat, `offsets` int64 with one more entry than rows.

    `types`, int8 and as long as `ids`, says of which text of a pair a token is; None where the tokenizer tells none apart.
    """

    ids: NDArray[np.int32]
    offsets: Ints
    types: NDArray[np.int8] | None = None

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


def encoded(tokenizer: Tokenizer, texts: Sequence[Text], special: bool) -> Iterator[list[int]]:
    """Return the ids of each text, with special tokens or without."""
    for encoding in _encodings(tokenizer, texts, special):
        yield encoding.ids


def _encodings(tokenizer: Tokenizer, texts: Sequence[Text], special: bool) -> Iterator[Encoding]:
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        batch = list(texts[start : start + TEXTS_AT_A_TIME])
        yield from tokenizer.encode_batch_fast(batch, add_special_tokens=special)


def tokenize(texts: Sequence[Text], tokenizer_file: Path, max_tokens: int) -> TokenSet:
    """Return the ids of `texts` with special tokens, cut at `max_tokens`, by a `tokenizer.json`; of pairs also the types."""
    ids, types, offsets = array("i"), array("b"), [0]
    for encoding in _encodings(load_tokenizer(tokenizer_file, max_tokens), texts, special=True):
        ids.extend(encoding.ids)
        types.extend(encoding.type_ids)
        offsets.append(len(ids))
    told_apart = np.array(types, dtype=np.int8) if any(isinstance(text, tuple) for text in texts) and any(types) else None
    return TokenSet(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64), told_apart)


def save_tokens(tokens: TokenSet, prefix: Path) -> None:
    """Write `prefix.ids.npy`, `prefix.offsets.npy` and, where tokens have types, `prefix.types.npy`."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{prefix}.ids.npy", tokens.ids)
    np.save(f"{prefix}.offsets.npy", tokens.offsets)
    if tokens.types is not None:
        np.save(f"{prefix}.types.npy", tokens.types)


def load_tokens(prefix: Path) -> TokenSet:
    """Return the tokens written by `save_tokens`, with the ids memory-mapped."""
    types = Path(f"{prefix}.types.npy")
    return TokenSet(
        np.load(f"{prefix}.ids.npy", mmap_mode="r"),
        np.load(f"{prefix}.offsets.npy"),
        np.load(types, mmap_mode="r") if types.exists() else None,
    )


def collate(tokens: TokenSet, rows: Ints, pad_id: int = 0) -> tuple[Ints, Ints]:
    """Return ids and mask of shape (B, T), int64; mask is 1 on tokens and 0 on padding."""
    return _collated(tokens, np.asarray(tokens.ids), rows, pad_id)


def _collated(tokens: TokenSet, values: NDArray[np.integer], rows: Ints, fill: int) -> tuple[Ints, Ints]:
    lengths = tokens.lengths[rows]
    columns = np.arange(int(lengths.max(initial=1)))
    mask_BT = columns[None, :] < lengths[:, None]
    positions_BT = np.where(mask_BT, tokens.offsets[rows][:, None] + columns[None, :], 0)
    values_BT = np.where(mask_BT, values[positions_BT], fill)
    return values_BT.astype(np.int64), mask_BT.astype(np.int64)


def collate_types(tokens: TokenSet, rows: Ints) -> Ints | None:
    """Return the types of the tokens that `collate` returns, 0 on padding, (B, T), int64; None where the set has none."""
    if tokens.types is None:
        return None
    return _collated(tokens, np.asarray(tokens.types), rows, 0)[0]


def rows_of(tokens: TokenSet, rows: Ints) -> TokenSet:
    """Return some rows of a set, in the order given."""
    places = [slice(tokens.offsets[row], tokens.offsets[row + 1]) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths[rows])]).astype(np.int64)
    ids = np.concatenate([np.zeros(0, dtype=np.int32), *(np.asarray(tokens.ids[place]) for place in places)])
    if tokens.types is None:
        return TokenSet(ids, offsets)
    return TokenSet(ids, offsets, np.concatenate([np.zeros(0, dtype=np.int8), *(tokens.types[place] for place in places)]))


def joined(first: TokenSet, second: TokenSet) -> TokenSet:
    """Return the two sets as one, the rows of the first before those of the second."""
    ids = np.concatenate([first.ids, second.ids])
    offsets = np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
    if first.types is None and second.types is None:
        return TokenSet(ids, offsets)
    both = [np.zeros(len(tokens.ids), dtype=np.int8) if tokens.types is None else tokens.types for tokens in (first, second)]
    return TokenSet(ids, offsets, np.concatenate(both))


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
