"""Measures no rival of a language model: a linear model over words predicts no next token.

deps: data/sets | outs: baselines/ without rivals
"""

from __future__ import annotations

from typing import Any

from tasks.files import write_json
from tasks.params.causal_lm import CausalLMParams
from tasks.running.stage import InPath, OutPath


def run(
    params: CausalLMParams,
    *,
    sets: InPath,  # noqa: ARG001 - the same arguments as for a classifier
    out: OutPath,
) -> dict[str, Any]:
    """Return that there are none."""
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    write_json(out / "quality.json", {"confidence": params.evaluate.confidence, "rivals": {}})
    return {"rivals": {}}
