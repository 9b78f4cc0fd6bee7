"""Shapes that stock classes of several families cannot hold."""

from __future__ import annotations

from collections.abc import Mapping


def unequal_heads(new_shape: Mapping[str, int], size: int, family: str) -> str | None:
    """Return the refusal of a family whose width is that of its heads together, None when the shape is so."""
    hidden, heads = new_shape["hidden"], new_shape["heads"]
    if hidden == heads * size:
        return None
    return (
        f"hidden = {hidden} and heads = {heads} make heads of {hidden / heads:g} channels; the teacher's have {size}, "
        f"and a stock {family} model loads only hidden = heads x {size}, here {heads * size}"
    )


def other_vocabulary(new_shape: Mapping[str, int], shape: Mapping[str, int], family: str) -> str | None:
    """Return the refusal of a family whose tokenizers are byte-pair encodings: a piece's parts are needed to spell it."""
    if new_shape["vocabulary"] == shape["vocabulary"]:
        return None
    return (
        f"vocabulary = {new_shape['vocabulary']}: pruning knows WordPiece vocabularies alone, and those of {family} are "
        f"byte-pair encodings; allowed: {shape['vocabulary']}"
    )
