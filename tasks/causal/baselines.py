"""Measures no rival of a language model: a linear model over words predicts no next token.

deps: data/sets | outs: baselines/ without rivals
"""

from __future__ import annotations

from typing import Any

from tasks.lineage.files import write_json
from tasks.params_causal import CausalParams
from tasks.stage import InPath, OutPath


def run(
    params: CausalParams,
    *,
    sets: InPath,  # noqa: ARG001 - the same arguments as for a classifier
    out: OutPath,
) -> dict[str, Any]:
    """Return that there are none."""
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    write_json(out / "quality.json", {"confidence": params.evaluate.confidence, "rivals": {}})
    return {"rivals": {}}
