"""Which shapes a search tries: good ones that differ much, for the least lost need not be the best after a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tasks.pruning.planner import DEAR, Candidate
from tasks.pruning.shapes import AXES, Shape

GOOD: Final = 2.5  # a shape that loses so much more than the least is none to try, while there are enough others


def most_different(found: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return `count` of the good shapes that differ most, the least lost first; `found` must be in the order of the loss.

    Then comes, again and again, the good shape whose nearest neighbour among the chosen is farthest; of equals the one that
    loses less. After the good ones come the others in their order. So a larger count adds shapes behind those of a smaller one,
    and those that were tried keep their numbers.
    """
    good = [one for one in found if one.loss <= found[0].loss + GOOD]
    chosen = good[:1]
    while len(chosen) < min(count, len(good)):
        rest = [one for one in good if one not in chosen]
        chosen.append(max(rest, key=lambda one: min(distance(one.shape, other.shape) for other in chosen)))
    return [*chosen, *found[len(good) :]][:count]


def distance(first: Shape, second: Shape) -> float:
    """Return how far two shapes are apart: sqrt of the sum over axes of DEAR x (ln of the ratio of sizes)**2."""
    return math.sqrt(sum(DEAR[axis] * math.log(first[axis] / second[axis]) ** 2 for axis in AXES))
