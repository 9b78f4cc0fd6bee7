"""What a teacher holds most likely at each place, cached on disk, and the loss of a student that knows no more of it.

The K best pieces keep their probabilities and all others are one outcome, "the rest". A divergence over these K + 1 outcomes is
at most the one over the whole vocabulary, and zero when student and teacher agree. `teacher_logits` writes the cache of the
training blocks, `distill` reads it from disk batch by batch.

Letters: N places, V pieces of the vocabulary, K pieces kept, R = K + 1 outcomes, M cached blocks, T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.blocks import Rows
from tasks.errors import DataError
from tasks.files import file_sha256, read_json

IDS_FILE: Final = "top_ids.npy"  # uint16 or int32 (M, T - 1, K)
SHARES_FILE: Final = "top_log_shares.npy"  # float16 (M, T - 1, R), nats
NUMBERS_FILE: Final = "top_blocks.npy"  # int64 (M,), which of the training blocks they are
LARGEST_SHORT: Final = np.iinfo(np.uint16).max
BEFORE_FLOAT16_ENDS: Final = -60_000.0  # exp of it is 0 either way, and it is finite
SMALLEST: Final = 1e-30  # of a share before its logarithm: the rest of a sure student may be too small for fp32


@dataclass(frozen=True)
class TopK:
    """The pieces (N, K), int64, and the log probabilities (N, R) of each and of the rest, nats, at temperature 1."""

    ids_NK: Tensor
    log_shares_NR: Tensor

    def __getitem__(self, places: slice) -> TopK:
        """Return some of the places."""
        return TopK(self.ids_NK[places], self.log_shares_NR[places])


def best(logits_NV: Tensor, k: int) -> TopK:
    """Return the k most likely pieces of logits and the rest, fp32 (fp64 where the logits are)."""
    precise_NV = precise(logits_NV)
    picked_NK, ids_NK = precise_NV.topk(k, dim=-1)
    probability_NV, total_N1 = probabilities(precise_NV)
    rest_N1 = probability_NV.scatter_(1, ids_NK, 0.0).sum(dim=-1, keepdim=True).clamp_(min=SMALLEST)
    return TopK(ids_NK, torch.cat([picked_NK - total_N1, rest_N1.log()], dim=-1))


def outcomes(log_NV: Tensor, ids_NK: Tensor) -> Tensor:
    """Return the log probabilities (N, R) of the pieces named and, last, of all others together."""
    others_NV = log_NV.scatter(1, ids_NK, float("-inf"))
    rest_N1 = others_NV.logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_NV.gather(1, ids_NK), rest_N1], dim=-1)


def kl_value_and_slope(logits_NV: Tensor, taught: TopK) -> tuple[Tensor, Tensor]:
    """Return the summed KL(teacher || student) over the outcomes, nats, and its gradient with respect to the logits.

    The gradient at a kept piece is student - teacher. Of the rest, the teacher's share r is laid on the student's own
    pieces as the student does, of whom they have R together: q - r q / R. With r = R nothing pulls at them.
    """
    precise_NV = precise(logits_NV)
    slope_NV, total_N1 = probabilities(precise_NV)
    picked_NK = precise_NV.gather(1, taught.ids_NK) - total_N1
    slope_NV.scatter_(1, taught.ids_NK, 0.0)
    rest_N = slope_NV.sum(dim=-1).clamp_(min=SMALLEST)
    shares_NR = taught.log_shares_NR.exp()
    kept_NK, left_N = shares_NR[:, :-1], shares_NR[:, -1]
    value = (kept_NK * (taught.log_shares_NR[:, :-1] - picked_NK)).sum()
    value = value + torch.special.xlogy(left_N, left_N / rest_N).sum()
    slope_NV.mul_(((rest_N - left_N) / rest_N).unsqueeze(1))
    slope_NV.scatter_(1, taught.ids_NK, picked_NK.exp() - kept_NK)
    return value, slope_NV


def probabilities(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax (N, V) and the logarithm (N, 1) of the sum of exponentials, which log probabilities lack.

    One exponential a piece. The largest probability is 1 over the sum of exp(logit - largest logit).
    """
    probability_NV = torch.softmax(logits_NV, dim=-1)
    largest_N1 = probability_NV.amax(dim=-1, keepdim=True)
    return probability_NV, logits_NV.amax(dim=-1, keepdim=True) - largest_N1.log()


def precise(logits_NV: Tensor) -> Tensor:
    """Return the logits in fp32, or as they are where that is fp64."""
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()


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
        listed = list(parts)
        ids = torch.cat([part.ids_NK for part in listed]).cpu().numpy()
        shares = torch.cat([part.log_shares_NR for part in listed]).clamp(min=BEFORE_FLOAT16_ENDS).cpu().numpy()
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
