"""The metrics by which trainings choose their best checkpoint, and which way each is better; light, for who only reads them."""

from __future__ import annotations

from typing import Final

CLOSEST: Final = "validation_kl_nats_per_example"  # of the teacher from the student: the mean over rows of forward KL
LEARNT: Final = "learnt_kl_nats_per_example"  # the same of rows it trains on; far below CLOSEST it knows them by heart
MOST_RIGHT: Final = "validation_accuracy"
ROWS_NLL: Final = "validation_nll_nats_per_example"
BLOCKS_NLL: Final = "validation_nll_nats_per_token"  # of language models
MEASURED: Final = ("validation_", "learnt_")  # how the numbers of a checkpoint begin
BETTER: Final = {CLOSEST: 1, MOST_RIGHT: -1, BLOCKS_NLL: 1}  # the sign that makes the best the smallest
