"""Which cells each table has. A cell is a round of params.yaml from the teacher, and how it is started and recovered."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

CRITERIA: Final = ("activation", "magnitude_l2", "taylor", "wanda", "random")
RATIOS: Final = (2.0, 4.0, 8.0)
MASKS: Final[dict[str, dict[str, Any]]] = {
    "50 %": {"granularity": "unstructured", "sparsity": 0.5},
    "70 %": {"granularity": "unstructured", "sparsity": 0.7},
    "90 %": {"granularity": "unstructured", "sparsity": 0.9},
    "2:4": {"granularity": "n_m", "pattern": "2:4"},
}
MASK_CRITERIA: Final = ("magnitude_l2", "wanda", "random")
RATE: Final = 3.0e-4  # of the second and third round of the shipped params.yaml
RATE_OF_THE_WHOLE: Final = 1.0e-4  # where the shape stays the teacher's, as of the first round
CHECKPOINTS: Final = 10

# The same at about 2x and 2.6x fewer parameters of the encoder. TextPruner cannot narrow the hidden width, and
# Torch-Pruning cannot shorten the vocabulary, so each goes to its own shape nearest to the ratio, and ours to either's total.
NARROW: Final = {
    "2.0x": {"vocabulary": 30522, "hidden": 256, "heads": 8, "ffn": 1216, "layers": 6},
    "2.6x": {"vocabulary": 30522, "hidden": 256, "heads": 8, "ffn": 820, "layers": 6},
}
WIDE: Final = {
    ratio: {**shape, "hidden": 384, **own}
    for (ratio, shape), own in zip(NARROW.items(), ({"heads": 6, "ffn": 768}, {"heads": 4, "ffn": 632}), strict=True)
}
TOTALS: Final = {"2.0x": (13_341_570, 17_397_506), "2.6x": (12_122_682, 16_179_026)}  # of the whole NARROW, and WIDE model


@dataclass(frozen=True)
class Cell:
    """One measurement: `target` are keys of a round; `start` is pruned, random, or a rival with its criterion.

    `loss`: `kd` is that of params.yaml. `ce` is cross-entropy alone, on transfer rows with the class that the teacher
    chooses. `labels` is cross-entropy on the labelled rows alone, over and over for about as many steps.
    """

    target: dict[str, Any] = field(default_factory=dict)
    start: str = "pruned"
    loss: str = "kd"
    learning_rate: float = RATE

    def described(self, **where: Any) -> dict[str, Any]:
        """Return the key of the cell in the file of results, with what it was measured on."""
        return {**asdict(self), **where}


def criteria_cells() -> dict[tuple[str, str], Cell]:
    """Return (ratio, criterion) -> cell; one shape a ratio, solved by the planner, and one shot from the teacher."""
    return {(f"{ratio:g}x", name): Cell({"ratio": ratio, "criterion": name}) for ratio in RATIOS for name in CRITERIA}


def masks_cells() -> dict[tuple[str, str], Cell]:
    """Return (masks, criterion) -> cell."""
    return {
        (name, criterion): Cell({**masks, "criterion": criterion, "schedule": "single"}, learning_rate=RATE_OF_THE_WHOLE)
        for name, masks in MASKS.items()
        for criterion in MASK_CRITERIA
    }


def curves_cells() -> dict[tuple[str, str], Cell]:
    """Return (ratio, name of the curve) -> cell, the one that is to win first; two of them are also cells of `criteria`."""
    best = {"ratio": 8.0, "criterion": "activation"}
    return {
        ("8x", "activation-pruned + KD"): Cell(best),
        ("8x", "random-pruned + KD"): Cell({**best, "criterion": "random"}),
        ("8x", "random init + KD"): Cell(best, start="random"),
        ("8x", "activation-pruned + CE"): Cell(best, loss="ce"),
        ("8x", "activation-pruned + CE, labelled rows"): Cell(best, loss="labels"),
    }


def rivals_cells() -> dict[tuple[str, str], Cell]:
    """Return (ratio of the encoder's parameters and whose shape, who) -> cell, ours of the same total first."""
    cells: dict[tuple[str, str], Cell] = {}
    for ratio, shape in NARROW.items():
        group, total = f"{ratio}, Torch-Pruning", TOTALS[ratio][0]
        for criterion in ("taylor", "activation"):
            cells[group, f"ours, planned shape, {criterion}"] = Cell({"params_total": total, "criterion": criterion})
        for criterion in ("taylor", "activation"):
            cells[group, f"ours, its shape, {criterion}"] = Cell({**shape, "criterion": criterion})
        for criterion in ("taylor", "magnitude"):
            cells[group, f"Torch-Pruning, {criterion}"] = Cell(shape, start=f"torch_pruning:{criterion}")
        group, total = f"{ratio}, TextPruner", TOTALS[ratio][1]
        cells[group, "ours, planned shape, taylor"] = Cell({"params_total": total, "criterion": "taylor"})
        cells[group, "TextPruner, iterative"] = Cell(WIDE[ratio], start="textpruner:iterative")
    return cells
