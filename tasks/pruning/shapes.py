"""The axes along which a model shrinks, and the plan of what is kept along each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Plan:
    """The indices of the parent that a student keeps, all in ascending order.

    `layers` numbers the parent's layers; `heads` and `ffn` have one list for each kept layer. `pooler` are the kept
    output channels of the pooler, which has a space of its own. `merged` has for each kept layer the pairs of
    `tasks.pruning.merging`, and is empty where heads are not merged. From the parent's weights and a plan the pruned weights
    follow exactly, bit for bit.
    """

    vocabulary: list[int]
    hidden: list[int]
    layers: list[int]
    heads: list[list[int]]
    ffn: list[list[int]]
    pooler: list[int]
    merged: list[list[list[int]]] = field(default_factory=list)

    def shape(self) -> dict[str, int]:
        """Return the size of the student along each axis."""
        return {
            "vocabulary": len(self.vocabulary),
            "hidden": len(self.hidden),
            "heads": len(self.heads[0]),
            "ffn": len(self.ffn[0]),
            "layers": len(self.layers),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the plan of the `keep` part of a plan.json."""
        return cls(
            **{name: values[name] for name in ("vocabulary", "hidden", "layers", "heads", "ffn", "pooler")},
            merged=values.get("merged", []),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `keep` part of a plan.json; `merged` only where heads are."""
        return {name: value for name, value in vars(self).items() if name != "merged" or value}
