"""The axes along which a model shrinks, and how many parameters a shape has."""

from __future__ import annotations

from typing import Final

AXES: Final = ("vocabulary", "hidden", "heads", "ffn", "layers")
