"""Which dimension of which weight lies on which axis: a table for each family.

Names of dimensions: `vocabulary`, `hidden`, `heads` (the channels of the heads, side by side), `qkv` (query, key and value
channels one after the other in one weight), `ffn`, `pooler`; None is never cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Axes = tuple[str | None, ...]  # one entry for each dimension of a weight
FUSED: Final = 3  # query, key and value


@dataclass(frozen=True)
class Layout:
    """The weights of a family of models.

    `layers` is the name of the list of layers, `embeddings` those of the modules below it; `outside` gives the axes of
    weights by full name, `inside` those of a layer's weights by the name within the layer.
    """

    layers: str
    embeddings: tuple[str, ...]
    outside: Mapping[str, Axes]
    inside: Mapping[str, Axes]

    def place(self, name: str) -> tuple[int | None, Axes]:
        """Return the layer of a weight, None outside the layers, and its axes; KeyError when the family has no such."""
        if name.startswith(f"{self.layers}."):
            number, _, rest = name.removeprefix(f"{self.layers}.").partition(".")
            if rest in self.inside:
                return int(number), self.inside[rest]
        elif name in self.outside:
            return None, self.outside[name]
        raise KeyError(f"this family has no weight {name!r}; the checkpoint is of another architecture")

    def renumbered(self, name: str, layer: int) -> str:
        """Return the name of a layer's weight in another layer."""
        rest = name.removeprefix(f"{self.layers}.").partition(".")[2]
        return f"{self.layers}.{layer}.{rest}"
