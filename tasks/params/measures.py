"""How a run measures, as plain values: what the sections `data` and `evaluate` say to `tasks.measuring`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tasks.measuring.quality import Draws
from tasks.measuring.subject import BlockSettings, RowSettings, Timing
from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams


def row_settings(params: ClassificationParams) -> RowSettings:
    """Return how a classifier is measured."""
    data, how = params.data, params.evaluate
    rows = (data.measured_sets, data.unlabelled_sets, data.labels, data.max_tokens, how.rare_token_share, how.calibration_bins)
    return RowSettings(*rows, *_shared(params))


def block_settings(params: CausalLMParams) -> BlockSettings:
    """Return how a language model is measured."""
    how = params.evaluate
    blocks = (params.measured_sets(), how.batch_blocks, how.prompts, how.prompt_tokens, how.new_tokens)
    return BlockSettings(*blocks, *_shared(params))


def _shared(params: ClassificationParams | CausalLMParams) -> tuple[Draws, Timing]:
    how = params.evaluate
    draws = Draws(how.bootstrap_resamples, how.confidence, params.seed)
    return draws, Timing(how.latency_batches, how.latency_tokens, how.latency_repeats)


SETTINGS: Final[dict[str, Callable[[Any], Any]]] = {CLASSIFICATION: row_settings, CAUSAL_LM: block_settings}
