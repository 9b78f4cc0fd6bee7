"""What passes inside a model: the states of its layers row by row, and the queries, keys and values of its last layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.data.tokens import TokenSet, bucketed, collate
from tasks.distillation.hidden import row_states
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import pad_id
from tasks.models.devices import Device
from tasks.pruning.layout import FUSED


def reads(model: Any) -> str:
    """Return which token the classifier reads: the `first` or the `last` of a row."""
    return str(adapter_of(model.config.to_dict()).READS)


def predict_states(
    model: Any,
    tokens: TokenSet,
    layers: Sequence[int],
    batch_rows: int,
    device: Device,
    into: NDArray[Any],
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Write the states of the layers, counted from 1, `into` an array (rows, layers, kinds, channels), in row order."""
    model.eval().to(device.device)
    done = 0
    with torch.inference_mode(), device.autocast():
        for rows in bucketed(tokens.lengths, batch_rows):
            ids_BT, mask_BT = (
                torch.from_numpy(array).to(device.device) for array in collate(tokens, rows, pad_id(model))
            )
            found = model(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=True).hidden_states
            states = [row_states(found[layer], mask_BT, reads(model)) for layer in layers]
            into[rows] = torch.stack(states, dim=1).cpu().numpy()
            done += len(rows)
            if on_batch is not None:
                on_batch(done)


class LastRelations:
    """Listens to the last layer of a model; `seen` holds query, key and value of its latest forward pass, (B, T, X)."""

    def __init__(self, model: Any) -> None:
        self._modules: list[nn.Module] = adapter_of(model.config.to_dict()).relations(model)
        self._outputs: dict[int, Tensor] = {}
        for number, module in enumerate(self._modules):
            module.register_forward_hook(self._listener(number))

    def _listener(self, number: int) -> Callable[..., None]:
        def listen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._outputs[number] = output

        return listen

    @property
    def seen(self) -> list[Tensor]:
        """Query, key and value."""
        if len(self._modules) == 1:
            return list(self._outputs[0].chunk(FUSED, dim=-1))
        return [self._outputs[number] for number in range(len(self._modules))]
