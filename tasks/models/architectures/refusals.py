"""Shapes that stock classes of several families cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FEWEST_TOKENS: Final = 257


def unequal_heads(new_shape: Mapping[str, int], size: int, family: str) -> str | None:
    """Return the refusal of a family whose width is that of its heads together, None when the shape is so."""
    hidden, heads = new_shape["hidden"], new_shape["heads"]
    if hidden == heads * size:
        return None
    return (
        f"hidden = {hidden} and heads = {heads} make heads of {hidden / heads:g} channels; the teacher's have {size}, "
        f"and a stock {family} model loads only hidden = heads x {size}, here {heads * size}"
    )


def too_few_tokens(new_shape: Mapping[str, int], shape: Mapping[str, int], family: str) -> str | None:
    """Return the refusal of a family whose tokenizers are byte-pair encodings, which write every text with 256 bytes."""
    if new_shape["vocabulary"] in (shape["vocabulary"], *range(FEWEST_TOKENS, shape["vocabulary"])):
        return None
    return (
        f"vocabulary = {new_shape['vocabulary']}: those of {family} are byte-pair encodings, and the 256 bytes and the end "
        f"of text stay; allowed: from {FEWEST_TOKENS} to {shape['vocabulary']}"
    )
