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

    One pass after the other: a pass holds the training set while labelled epochs last and the transfer set (a random
    share of it for a broken epoch) while transfer epochs last. The longer of the two so ends alone, which is right for
    labelled rows: the last passes refine on the task itself.
    """
    rng = np.random.default_rng(seed)
    labelled, transfer = np.arange(num_train), np.arange(num_train, len(lengths))
    batches: list[Rows] = []
    for turn in range(max(labelled_epochs, int(np.ceil(transfer_epochs)))):
        share = float(np.clip(transfer_epochs - turn, 0.0, 1.0))
        chosen = rng.permutation(transfer)[: round(share * len(transfer))]
        rows = np.concatenate([labelled if turn < labelled_epochs else labelled[:0], chosen])
        batches += [rows[batch] for batch in shuffled_buckets(lengths[rows], batch_rows, rng)]
    return batches
