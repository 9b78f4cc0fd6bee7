"""Which single weights of a model's layers stay: a score for each, and the masks that follow.

Every score is a matrix (O, I) of a product's outputs and inputs, fp32 on the CPU, larger is more important; see docs/methods.md.
To let another criterion rank single weights, write a function and an entry of `WEIGHT_CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.errors import ParamsError
from tasks.models.masks import keep_largest, keep_largest_by_row, keep_n_of_m, products
from tasks.params.rounds import Round
from tasks.pruning.calibration import Calibration
from tasks.pruning.depth import listening
from tasks.pruning.statistics import TokenNorm

ByProduct = dict[str, Tensor]  # of each matrix product of the layers, by its name


class WeightCalibration(Calibration):
    """The `Statistics` of a model, and what criteria look at to rank its single weights."""

    def products(self) -> dict[str, nn.Module]:
        """Return the matrix products whose weights are ranked."""
        return products(self._model)

    def weights(self) -> ByProduct:
        """Return the weights."""
        return {name: _oriented(m, m.weight.detach()).float().cpu() for name, m in self.products().items()}

    def input_norms(self) -> ByProduct:
        """Return the L2 norm over all tokens of all rows of what each product reads, (I,)."""
        norms = {name: TokenNorm() for name in self.products()}
        for rows in self._batches():
            inputs = self._batch(rows)

            def listener(norm: TokenNorm, mask_BT: Tensor = inputs["attention_mask"]) -> Callable[..., None]:
                return lambda _module, read: norm.add(read[0], mask_BT)

            hooks = [m.register_forward_pre_hook(listener(norms[name])) for name, m in self.products().items()]
            with listening(hooks), torch.inference_mode():
                self._run(inputs)
        return {name: norm.root() for name, norm in norms.items()}

    def gradients(self) -> ByProduct:
        """Return the gradient of the mean cross-entropy of the labels with respect to each weight."""
        modules = self.products()
        weights: list[Any] = [module.weight for module in modules.values()]
        sums = [torch.zeros_like(weight) for weight in weights]
        for rows in self._batches():
            with torch.enable_grad():
                gradients = torch.autograd.grad(self._summed_loss(rows), weights)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient / len(self._labels)
        return {name: _oriented(m, total).float().cpu() for (name, m), total in zip(modules.items(), sums, strict=True)}


def magnitude(statistics: WeightCalibration) -> ByProduct:
    """Return |weight|: L1 and L2 of one number order alike."""
    return {name: weight.abs() for name, weight in statistics.weights().items()}


def random(statistics: WeightCalibration) -> ByProduct:
    """Return uniform numbers in [0, 1) from the seed."""
    generator = torch.Generator().manual_seed(statistics.seed)
    return {name: torch.rand(w.shape, generator=generator) for name, w in statistics.weights().items()}


def taylor(statistics: WeightCalibration) -> ByProduct:
    """Return |weight x gradient|: to first order what the loss of all rows changes by without the weight, nats."""
    gradients = statistics.gradients()
    return {name: (weight * gradients[name]).abs() for name, weight in statistics.weights().items()}


def wanda(statistics: WeightCalibration) -> ByProduct:
    """Return |weight| x ||input||. Source: Sun et al., arXiv:2306.11695, eq. 1."""
    norms = statistics.input_norms()
    return {name: weight.abs() * norms[name] for name, weight in statistics.weights().items()}


WEIGHT_CRITERIA: Final[dict[str, Callable[[WeightCalibration], ByProduct]]] = {
    "magnitude_l1": magnitude,
    "magnitude_l2": magnitude,
    "random": random,
    "taylor": taylor,
    "wanda": wanda,
}


def make_masks(statistics: WeightCalibration, target: Round, criterion: str) -> ByProduct:
    """Return a mask for each product's weight, in the orientation of the weight; True = keep.

    With a schedule all are True: the weights go while the student trains. Ranked over a product's whole weight; Wanda
    ranks every output by itself.
    """
    modules = statistics.products()
    if target.schedule != "single":
        weights: dict[str, Any] = {name: module.weight for name, module in modules.items()}
        return {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    scores = WEIGHT_CRITERIA[criterion](statistics)
    return {
        name: _oriented(module, _mask(scores[name], target, criterion, name)).contiguous() for name, module in modules.items()
    }


def _mask(scores_OI: Tensor, target: Round, criterion: str, name: str) -> Tensor:
    if target.pattern is not None:
        n, m = map(int, target.pattern.split(":"))
        if scores_OI.shape[1] % m:
            raise ParamsError(
                f"params.yaml: rounds: pattern: {target.pattern} does not divide the {scores_OI.shape[1]} inputs of {name}"
            )
        return keep_n_of_m(scores_OI, n, m)
    assert target.sparsity is not None
    return (keep_largest_by_row if criterion == "wanda" else keep_largest)(scores_OI, target.sparsity)


def _oriented(module: Any, values: Tensor) -> Tensor:
    """Return values as (outputs, inputs) from a weight's orientation, or back; GPT-2's Conv1D is the other way round."""
    return values if isinstance(module, nn.Linear) else values.T
