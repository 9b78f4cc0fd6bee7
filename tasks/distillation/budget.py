"""Which rows a round trains on, in which order: labelled and transfer rows in one list of batches.

Rows are numbered through: first the training set, then the transfer set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.data.tokens import TokenSet, shuffled_buckets

Rows = NDArray[np.int64]


def joined(first: TokenSet, second: TokenSet) -> TokenSet:
    """Return the two sets as one, the rows of the first before those of the second."""
    ids = np.concatenate([first.ids, second.ids])
    return TokenSet(ids, np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]))


def plan_batches(
    lengths: Rows, num_train: int, labelled_epochs: int, transfer_epochs: float, batch_rows: int, seed: int
) -> list[Rows]:
    """Return the batches of a distillation, in order; the same for the same arguments.

    Both kinds of rows are spread evenly over the training, so every part of it sees the same mixture: a student that ends
    on labelled rows alone over-fits the teacher's logits there, which are surer than the teacher is.
    """
    rng = np.random.default_rng(seed)
    labelled = _stream(np.arange(num_train), float(labelled_epochs), rng)
    transfer = _stream(np.arange(num_train, len(lengths)), transfer_epochs, rng)
    passes = max(1, int(np.ceil(max(labelled_epochs, transfer_epochs))))
    batches: list[Rows] = []
    for parts in zip(np.array_split(labelled, passes), np.array_split(transfer, passes), strict=True):
        rows = np.concatenate(parts)
        batches += [rows[batch] for batch in shuffled_buckets(lengths[rows], batch_rows, rng)]
    return batches


def spread_rows(batches: list[Rows], count: int) -> Rows:
    """Return at most `count` of the rows of the batches, each once, in order and evenly spread over them."""
    rows = np.unique(np.concatenate(batches)) if batches else np.zeros(0, dtype=np.int64)
    if len(rows) > count:
        rows = rows[np.arange(count) * len(rows) // count]
    return rows


def _stream(rows: Rows, epochs: float, rng: np.random.Generator) -> Rows:
    """Return `epochs` x `rows`, shuffled epoch by epoch; of a broken last epoch the share asked for."""
    turns = [rng.permutation(rows) for _ in range(int(np.ceil(epochs)))]
    return np.concatenate([rows[:0], *turns])[: round(epochs * len(rows))]
