"""The one door to FSDP: a model of which each process of a group holds a share, put together a layer at a time where it is used.

It is torch's second version (`fully_shard`), the one that Accelerate calls as well. Every method is called by all processes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Shares:
    """Cuts what trains into one share for each process of the group, and puts together what is measured and saved."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._device, self._count = device, count

    def to_cut(self, model: Any, first: bool) -> Any:
        """Return what is to be cut: in the first process a copy, so that the model stays whole, to be measured and saved."""
        return copy.deepcopy(model) if first else model

    def cut(self, module: Any) -> nn.Module:
        """Return the module, which has its model as `model`, cut in place: by layers of the model, then the rest."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        from tasks.models.architectures import layers_of

        mesh = init_device_mesh(self._device.type, (self._count,))
        for layer in layers_of(module.model)[1]:
            fully_shard(layer, mesh=mesh)
        cut: nn.Module = fully_shard(module, mesh=mesh)
        return cut

    @contextlib.contextmanager
    def gradients_stay(self, module: Any) -> Iterator[None]:
        """Make a context in which gradients are summed up in each process, and not yet over all of them."""
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)

    def bring_home(self, trained: Any, model: Any, first: bool) -> None:
        """Give the first process's `model` the weights that all hold shares of in `trained`."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        weights = get_model_state_dict(trained, options=_whole())
        if first:
            model.load_state_dict(weights)

    def optimiser_state(self, module: Any, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser's state put together, by names of parameters; empty in all processes but the first."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        return dict(get_optimizer_state_dict(module, optimiser, options=_whole()))

    def restore_optimiser(self, module: Any, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Give each process its share of a state that `optimiser_state` returned."""
        from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

        set_optimizer_state_dict(module, optimiser, state, options=_whole())

    def whole(self, value: Tensor) -> Tensor:
        """Return a value that each process holds a part of, such as a norm, put together."""
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value


def _whole() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
