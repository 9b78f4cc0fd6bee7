"""Which single weights of a model's layers stay: a score for each, and the masks that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tasks.data.tokens import TokenSet, bucketed, collate
from tasks.errors import ParamsError
from tasks.models.checkpoint import pad_id
from tasks.models.devices import Device
from tasks.models.masks import keep_largest, keep_largest_by_row, keep_n_of_m, products
from tasks.params.rounds import Round
from tasks.pruning.calibration import BATCH_ROWS, Labels
from tasks.pruning.statistics import TokenNorm


def make_masks(
    model: Any, calibration: TokenSet, labels: Labels, device: Device, target: Round, criterion: str, seed: int
) -> dict[str, Tensor]:
    """Return a mask for each product's weight, in the orientation of the weight; True = keep.

    With a schedule all are True: the weights go while the student trains. Ranked over a product's whole weight; Wanda
    ranks every output by itself.
    """
    found = products(model)
    masks = {}
    scores = _scores(model, found, calibration, labels, device, criterion, seed) if target.schedule == "single" else {}
    for name, module in found.items():
        if target.schedule != "single":
            masks[name] = torch.ones(module.weight.shape, dtype=torch.bool)
            continue
        masks[name] = _oriented(module, _mask(scores[name], target, criterion, name)).contiguous()
    return masks


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


def _scores(
    model: Any,
    found: dict[str, nn.Module],
    calibration: TokenSet,
    labels: Labels,
    device: Device,
    criterion: str,
    seed: int,
) -> dict[str, Tensor]:
    """Return the score of each weight as (outputs, inputs), fp32 on the CPU; see docs/methods.md."""
    weights = {name: _oriented(module, module.weight.detach()).float().cpu() for name, module in found.items()}
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
    if criterion == "wanda":
        norms = _input_norms(model, found, calibration, device)
        return {name: weight.abs() * norms[name] for name, weight in weights.items()}
    if criterion == "taylor":
        gradients = _gradients(model, found, calibration, labels, device)
        return {name: (weight * gradients[name]).abs() for name, weight in weights.items()}
    return {name: weight.abs() for name, weight in weights.items()}  # L1 and L2 of one number order alike


def _batches(model: Any, calibration: TokenSet, device: Device) -> Iterator[tuple[Any, Tensor, Tensor]]:
    model.to(device.device)
    for rows in bucketed(calibration.lengths, BATCH_ROWS):
        ids_BT, mask_BT = (torch.from_numpy(a).to(device.device) for a in collate(calibration, rows, pad_id(model)))
        yield rows, ids_BT, mask_BT


def _input_norms(model: Any, found: dict[str, nn.Module], calibration: TokenSet, device: Device) -> dict[str, Tensor]:
    norms = {name: TokenNorm() for name in found}
    for _, ids_BT, mask_BT in _batches(model, calibration, device):

        def listener(name: str, mask_BT: Tensor = mask_BT) -> Callable[..., None]:
            return lambda _module, inputs: norms[name].add(inputs[0], mask_BT)

        handles = [module.register_forward_pre_hook(listener(name)) for name, module in found.items()]
        with torch.inference_mode():
            model(input_ids=ids_BT, attention_mask=mask_BT)
        for handle in handles:
            handle.remove()
    return {name: norm.root() for name, norm in norms.items()}


def _gradients(
    model: Any, found: dict[str, nn.Module], calibration: TokenSet, labels: Labels, device: Device
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy of the labels with respect to each weight, (outputs, inputs)."""
    weights = [module.weight for module in found.values()]
    sums = [torch.zeros_like(weight) for weight in weights]
    for rows, ids_BT, mask_BT in _batches(model, calibration, device):
        with torch.enable_grad():
            logits_BC = model(input_ids=ids_BT, attention_mask=mask_BT).logits
            targets_B = torch.from_numpy(labels[rows]).to(device.device)
            loss = nn.functional.cross_entropy(logits_BC.float(), targets_B, reduction="sum")
            for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                total += gradient / len(labels)
    return {
        name: _oriented(module, total).float().cpu() for (name, module), total in zip(found.items(), sums, strict=True)
    }


def _oriented(module: Any, values: Tensor) -> Tensor:
    """Return values as (outputs, inputs) from a weight's orientation, or back; GPT-2's Conv1D is the other way round."""
    return values if isinstance(module, nn.Linear) else values.T
