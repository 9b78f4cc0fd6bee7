"""The metrics by which trainings choose their best checkpoint, and which way each is better; light, for who only reads them."""

from __future__ import annotations

from typing import Final

CLOSEST: Final = "validation_kl_nats_per_example"  # of the teacher from the student: the mean over rows of forward KL
MOST_RIGHT: Final = "validation_accuracy"
BLOCKS_NLL: Final = "validation_nll_nats_per_token"  # of language models
BETTER: Final = {CLOSEST: 1, MOST_RIGHT: -1, BLOCKS_NLL: 1}  # the sign that makes the best the smallest
