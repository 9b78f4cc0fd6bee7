"""The axes along which a model is cut, and a shape: the size along each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AXES: Final = ("vocabulary", "hidden", "heads", "ffn", "layers")
Shape = Mapping[str, int]  # axis of AXES -> size
