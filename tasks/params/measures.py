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
    return RowSettings(
        sets=params.data.measured_sets,
        labels=params.data.labels,
        max_tokens=params.data.max_tokens,
        rare_share=params.evaluate.rare_token_share,
        bins=params.evaluate.calibration_bins,
        draws=_draws(params),
        timing=_timing(params),
    )


def block_settings(params: CausalLMParams) -> BlockSettings:
    """Return how a language model is measured."""
    return BlockSettings(
        sets=params.measured_sets(),
        batch_blocks=params.evaluate.batch_blocks,
        prompts=params.evaluate.prompts,
        prompt_tokens=params.evaluate.prompt_tokens,
        new_tokens=params.evaluate.new_tokens,
        draws=_draws(params),
        timing=_timing(params),
    )


SETTINGS: Final[dict[str, Callable[[Any], Any]]] = {CLASSIFICATION: row_settings, CAUSAL_LM: block_settings}


def _draws(params: ClassificationParams | CausalLMParams) -> Draws:
    return Draws(params.evaluate.bootstrap_resamples, params.evaluate.confidence, params.seed)


def _timing(params: ClassificationParams | CausalLMParams) -> Timing:
    how = params.evaluate
    return Timing(how.latency_batches, how.latency_tokens, how.latency_repeats)
