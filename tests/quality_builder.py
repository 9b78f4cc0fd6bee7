"""quality.json as tests write it: one builder of the shapes that `tasks.artifacts` describes.

The standard library alone: small_stages.py runs it in projects that have nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.artifacts import Interval, Quality, SetQuality


def interval(value: float) -> Interval:
    """Return a measured number with an interval of two points."""
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def quality_set(
    slices: Mapping[str, Mapping[str, Any]], rows: int = 64, rows_sha256: str = "0" * 64, **variants: dict[str, Any]
) -> SetQuality:
    """Return one set: what was measured on each slice, and by each variant of the model."""
    named = {name: dict(numbers) for name, numbers in slices.items()}
    return {"rows": rows, "rows_sha256": rows_sha256, "slices": named, "variants": variants}


def quality(who: str, sets: Mapping[str, SetQuality], model_sha256: str) -> Quality:
    """Return quality.json of a round."""
    return {"round": who, "model_sha256": model_sha256, "confidence": 0.95, "sets": dict(sets)}


def rivals_quality(who: str, sets: Mapping[str, SetQuality]) -> dict[str, Any]:
    """Return quality.json of the baselines with one rival."""
    return {"rivals": {who: {"sets": dict(sets)}}}
