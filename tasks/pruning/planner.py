"""Which shape meets a budget: every valid shape near it, the one that keeps most of what matters first.

Which of them a search tries: good ones that differ much, for the least lost need not be the best after a training.

Order of preference, from arXiv:2407.14679, section 4.1, and arXiv:2408.11796, section 4: width before depth, neurons before
the hidden width and the heads; a large vocabulary goes early too. The numbers in `DEAR` are ours: with them the second
round of the shipped params.yaml, which was found by trial, is about what its size alone gives.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from tasks.models.shapes import AXES, Shape

DEAR: Final = {"vocabulary": 2.0, "hidden": 5.0, "heads": 5.0, "ffn": 1.0, "layers": 4.0}
TOLERANCE: Final = 0.05
STEPS: Final = 24  # an axis is tried in at least so many equal steps
MOST_SHRINK: Final = 8  # along one axis in one round
GOOD: Final = 2.5  # a shape that loses so much more than the least is none to try, while there are enough others
Size = Callable[[Shape], int]


@dataclass(frozen=True)
class Space:
    """The shapes to choose from: pairs of hidden width and heads that go together, and the other axes, all ascending.

    `before` is where nothing is lost yet: the parent, unless it has pieces that the data never have.
    """

    before: Shape
    hidden_heads: list[tuple[int, int]]
    vocabulary: list[int]
    ffn: list[int]
    layers: list[int]
    parent: Shape | None = None  # where that is another shape than `before`

    @property
    def is_empty(self) -> bool:
        """Whether no shape is in it."""
        return not (self.hidden_heads and self.vocabulary and self.ffn and self.layers)


@dataclass(frozen=True)
class Candidate:
    """A shape, its size in the unit of the budget, and what it loses; less is better."""

    shape: dict[str, int]
    size: int
    loss: float


def sizes_along(before: int) -> list[int]:
    """Return the sizes tried along an axis, ascending: multiples of a power of two, `before` itself, none too small."""
    step = 2 ** max(0, int(math.log2(max(1, before // STEPS))))
    return [size for size in range(step, before, step) if size * MOST_SHRINK >= before] + [before]


def lost(before: Shape, shape: Shape) -> float:
    """Return the sum over axes of DEAR x (ln of how many times smaller)**2: one axis to the bone is worse than all a bit."""
    return sum(DEAR[axis] * math.log(before[axis] / shape[axis]) ** 2 for axis in AXES)


def shapes_within(space: Space, size: Size, budget: int, tolerance: float = TOLERANCE) -> list[Candidate]:
    """Return every shape of the space with (1 - tolerance) x budget <= size <= budget, the least lost first.

    Ties go to the larger size, then to the larger shape, axis by axis; the parent's own shape is none of them. `size` must
    not fall when an axis grows.
    """
    candidates = [
        Candidate(shape, count, lost(space.before, shape))
        for shape, count in _near(space, size, math.ceil((1.0 - tolerance) * budget), budget)
        if any(shape[axis] != (space.parent or space.before)[axis] for axis in AXES)
    ]
    return sorted(candidates, key=lambda c: (c.loss, -c.size, [-c.shape[axis] for axis in AXES]))


def _near(space: Space, size: Size, low: int, high: int) -> Iterator[tuple[dict[str, int], int]]:
    for (hidden, heads), layers, ffn in product(space.hidden_heads, space.layers, space.ffn):
        rest = {"hidden": hidden, "heads": heads, "ffn": ffn, "layers": layers}
        sizes = _Sizes(space.vocabulary, rest, size)
        for place in range(bisect_left(sizes, low), bisect_right(sizes, high)):
            yield {"vocabulary": space.vocabulary[place], **rest}, sizes[place]


@dataclass(frozen=True)
class _Sizes(Sequence[int]):
    """The sizes of shapes that differ in the vocabulary alone, counted when they are asked for."""

    vocabulary: list[int]
    rest: Shape
    size: Size

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __getitem__(self, place: Any) -> Any:
        return self.size({"vocabulary": self.vocabulary[place], **self.rest})


def reachable(space: Space, size: Size) -> tuple[int, int]:
    """Return the smallest and the largest size in the space."""
    sizes = []
    for end in (0, -1):
        others = {axis: getattr(space, axis)[end] for axis in ("vocabulary", "ffn", "layers")}
        sizes += [size({"hidden": hidden, "heads": heads, **others}) for hidden, heads in space.hidden_heads]
    return min(sizes), max(sizes)


def most_different(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return `count` of the good shapes that differ most, the least lost first; they must be given in the order of the loss.

    Then comes, again and again, the good shape whose nearest neighbour among the chosen is farthest; of equals the one that
    loses less. After the good ones come the others in their order. So a larger count adds shapes behind those of a smaller one,
    and those that were tried keep their numbers.
    """
    good = [candidate for candidate in candidates if candidate.loss <= candidates[0].loss + GOOD]
    chosen = good[:1]

    def nearest(candidate: Candidate) -> float:
        return min(distance(candidate.shape, other.shape) for other in chosen)

    while len(chosen) < min(count, len(good)):
        chosen.append(max((candidate for candidate in good if candidate not in chosen), key=nearest))
    return [*chosen, *candidates[len(good) :]][:count]


def distance(first: Shape, second: Shape) -> float:
    """Return how far two shapes are apart: sqrt of the sum over axes of DEAR x (ln of the ratio of sizes)**2."""
    return math.sqrt(sum(DEAR[axis] * math.log(first[axis] / second[axis]) ** 2 for axis in AXES))
