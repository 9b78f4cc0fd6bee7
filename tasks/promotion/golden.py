"""Golden answers: a few texts whose logits were written down at export, to be given again by every copy of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.pairs import SECOND, Text
from tasks.gates.rules import Answer

Row = Mapping[str, Any]


def golden_rows(content: Any) -> tuple[list[Row], float] | None:
    """Return rows and tolerance of golden.json; None unless each row has a text or a pair, a label and finite logits."""
    rows = content.get("rows") if isinstance(content, Mapping) else None
    atol = _number(content.get("atol")) if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not rows or atol is None or not 0.0 < atol < 1.0:
        return None
    sound = all(_is_sound(row) for row in rows) and len({SECOND in row for row in rows}) == 1
    return (rows, atol) if sound else None


def asked_of(rows: Sequence[Row]) -> list[Text]:
    """Return the texts, or the pairs, of golden rows."""
    return [(str(row["text"]), str(row[SECOND])) if SECOND in row else str(row["text"]) for row in rows]


def reproduced(rows: Sequence[Row], logits: NDArray[np.floating[Any]], atol: float) -> Answer:
    """Return whether logits of shape (rows, classes) are the golden ones, to `atol`."""
    wanted = np.array([row["logits"] for row in rows], dtype=np.float64)
    if logits.shape != wanted.shape:
        return Answer("fail", f"a fresh process gives {logits.shape} logits where {wanted.shape} are golden")
    difference = float(np.abs(logits.astype(np.float64) - wanted).max())
    if not difference <= atol:
        return Answer("fail", f"a fresh process gives logits that differ by {difference:.2g}; at most {atol:g} is allowed")
    return Answer("pass", f"a fresh process gives the {len(rows)} golden answers, logits within {atol:g}")


def answered(rows: Sequence[Row], given: Any, atol: float) -> Answer:
    """Return whether a server gave the golden labels with their probabilities: a list of `label` and `score`."""
    if not isinstance(given, list) or len(given) != len(rows):
        return Answer("fail", f"the server answered {str(given)[:80]!r} to {len(rows)} texts")
    for row, answer in zip(rows, given, strict=True):
        label, score = (answer.get("label"), answer.get("score")) if isinstance(answer, Mapping) else (answer, None)
        number, wanted = _number(score), _probability(row["logits"])
        if label != row["label"] or number is None or not abs(number - wanted) <= atol:
            words = f"{label} with {score} where {row['label']} with {wanted:.6f} is right"
            return Answer("fail", f"the server answers {row['text'][:40]!r} wrongly: {words}")
    return Answer("pass", f"`mlflow models serve` gives the {len(rows)} golden answers, probabilities within {atol:g}")


def _is_sound(row: Any) -> bool:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key, ""), str) for key in ("text", SECOND, "label")):
        return False
    if "text" not in row or "label" not in row:
        return False
    logits = row.get("logits")
    return isinstance(logits, list) and len(logits) > 1 and all(_number(logit) is not None for logit in logits)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _probability(logits: Sequence[float]) -> float:
    """Return the softmax of the largest logit."""
    largest = max(logits)
    return 1.0 / sum(math.exp(logit - largest) for logit in logits)
