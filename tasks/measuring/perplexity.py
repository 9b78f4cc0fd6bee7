"""How well a language model predicts held-out blocks, with percentile-bootstrap intervals over blocks.

Letters: N blocks, R resamples. Each metric is a quotient of sums over blocks, so a resample is a vector of block counts;
student and teacher measured on the same blocks with the same seed see the same counts, and their ratio is paired.
Nats are summed and divided by tokens, so every token weighs the same, but what is drawn are blocks: the tokens of one text
are hard or easy together, and drawing them one by one would claim to know more than it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.measuring.predictions import agreed_pieces
from tasks.measuring.quality import Draws, Floats, intervals_of_sums

GRAM: Final = 4
LARGEST_NATS: Final = math.log(np.finfo(np.float64).max)


def exponential(nats: Floats | float) -> Floats:
    """Return e to the power of these nats, the largest number there is where that is beyond it."""
    number: Floats = np.exp(np.minimum(nats, LARGEST_NATS))
    return number


def nll_per_token(nll_nats_N: Floats, tokens_N: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of a token, nats."""
    return float(nll_nats_N.sum() / tokens_N.sum())


def measure_blocks(rows: pd.DataFrame, teacher: pd.DataFrame, draws: Draws) -> dict[str, Any]:
    """Return support (blocks) and the intervals of the metrics of a set, from the stored blocks of model and teacher.

    `nll_nats_per_token`, per token of the teacher's, whatever those of the model are; `nll_nats_per_byte`, per UTF-8 byte of the
    same text; `perplexity`, the exponential of the first; `perplexity_ratio`, to the teacher's on the same blocks; and
    `agreement`, the share of the model's own pieces for which student and teacher hold the same most likely.
    """
    agreed, pieces = agreed_pieces(rows, teacher)
    parts = (rows["tokens"], rows["nll_nats"], teacher["nll_nats"], agreed, rows["bytes"], pieces)
    columns = np.stack(parts, axis=1).astype(np.float64)
    return {"support": len(columns), **intervals_of_sums(columns, _metrics, draws)}


def _metrics(sums_RK: Floats) -> dict[str, Floats]:
    tokens, nll, teacher_nll, agreed, bytes_, pieces = sums_RK.T
    return {
        "nll_nats_per_token": nll / tokens,
        "nll_nats_per_byte": nll / bytes_,
        "perplexity": exponential(nll / tokens),
        "perplexity_ratio": exponential((nll - teacher_nll) / tokens),
        "agreement": agreed / pieces,
    }


def repetition_rate(tokens: Sequence[int]) -> float:
    """Return the share of 4-grams of a text that it has said before: 0 when none is, near 1 for one word over and over.

    Source: Welleck et al., arXiv:1908.04319, section 6 (seq-rep-4).
    """
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams)
