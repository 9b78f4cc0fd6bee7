"""What a classifier says of many rows, and a language model of token blocks, of which all logits are never held at once.

Letters: B rows of a batch, T tokens of a row or block, D hidden channels, V pieces of the vocabulary; N blocks, and in `Head`
predicted tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.tokens import TokenSet, bucketed, collate, collate_types
from tasks.models.checkpoint import pad_id
from tasks.models.devices import Device

Rows = NDArray[np.int64]


def knows_types(model: Any) -> bool:
    """Return whether a model tells the two texts of a pair apart by types of tokens: it has more than one type."""
    return int(getattr(model.config, "type_vocab_size", None) or 0) > 1


def inputs_of(model: Any, tokens: TokenSet, rows: Rows, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return what a model reads of some rows, each (B, T), on a device, else the CPU: ids, mask, and types if it knows them."""
    ids_BT, mask_BT = collate(tokens, rows, pad_id(model))
    arrays = {"input_ids": ids_BT, "attention_mask": mask_BT}
    types_BT = collate_types(tokens, rows) if knows_types(model) else None
    if types_BT is not None:
        arrays["token_type_ids"] = types_BT
    return {name: torch.from_numpy(array).to(device or "cpu") for name, array in arrays.items()}


def predict_batches(
    model: Any, tokens: TokenSet, batch_rows: int, device: Device, on_batch: Callable[[int], None] | None = None, **wanted: bool
) -> Iterator[tuple[Rows, Tensor, Any]]:
    """Yield the rows of each batch, their mask (B, T), and the model's outputs without gradients; every row once.

    `wanted` are further arguments of the model; `on_batch` hears how many rows are done.
    """
    model.eval().to(device.device)
    done = 0
    for rows in bucketed(tokens.lengths, batch_rows):
        inputs = inputs_of(model, tokens, rows, device.device)
        with torch.inference_mode(), device.autocast():
            outputs = model(**inputs, **wanted)
        yield rows, inputs["attention_mask"], outputs
        done += len(rows)
        if on_batch is not None:
            on_batch(done)


def predict_logits(
    model: Any, tokens: TokenSet, batch_rows: int, device: Device, on_batch: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Return float32 logits of shape (rows, classes) in row order; `on_batch` hears how many rows are done."""
    logits = np.zeros((len(tokens), model.config.num_labels), dtype=np.float32)
    for rows, _, outputs in predict_batches(model, tokens, batch_rows, device, on_batch):
        logits[rows] = outputs.logits.float().cpu().numpy()
    return logits


@dataclass(frozen=True)
class Head:
    """The last hidden states (N, D) of a model and the weight (V, D) of its output layer.

    With `adds_itself` the loss adds the weight's gradient to its `.grad` and tells autograd of none: its sums and copies of a
    tensor as wide as the vocabulary are the dearest part of a small batch. Not where others hear of gradients, such as the
    processes of a group.
    """

    hidden_ND: Tensor
    weight_VD: Tensor
    adds_itself: bool = False


def predicting(model: Any, ids_BT: Tensor, kept_V: Tensor | None = None) -> Head:
    """Return the head of every position that has a next token, block by block.

    With `kept_V`, the teacher's id of each of a student's, the tokens are the student's and so are the logits: a softmax over
    them is the teacher's distribution given that the next token is one that was kept.
    """
    return predicting_beside(model, ids_BT, None, kept_V)[0]


def predicting_beside(
    model: Any, ids_BT: Tensor, layer: int | None, kept_V: Tensor | None = None, weight_VD: Tensor | None = None
) -> tuple[Head, Tensor | None]:
    """Return what `predicting` does and, of a layer counted from 1, the states (B, T, D) that leave it.

    Of the last layer they would be those after the norm that follows it. `weight_VD` is what `output_weight` returned, of a
    model that does not change.
    """
    read_BT = ids_BT if kept_V is None else kept_V[ids_BT]
    more = {} if layer is None else {"output_hidden_states": True}
    outputs = model.base_model(input_ids=read_BT, use_cache=False, **more)
    hidden_BTD = outputs.last_hidden_state[:, :-1]
    if weight_VD is None:
        weight_VD = output_weight(model, kept_V)
    head = Head(hidden_BTD.reshape(-1, hidden_BTD.shape[-1]), weight_VD)
    return head, None if layer is None else outputs.hidden_states[layer]


def output_weight(model: Any, kept_V: Tensor | None = None) -> Tensor:
    """Return the weight (V, D) of the output layer; with `kept_V` a copy of these pieces, without a gradient."""
    weight_VD: Tensor = model.get_output_embeddings().weight
    return weight_VD if kept_V is None else weight_VD.detach()[kept_V]


def next_tokens(ids_BT: Tensor) -> Tensor:
    """Return the tokens that `predicting` is about, shape (N,)."""
    return ids_BT[:, 1:].reshape(-1)


@dataclass(frozen=True)
class BlockPredictions:
    """For each block the negative log-likelihood of its tokens but the first, summed, nats; and the first choices.

    `nll_nats_N` is float64; `choices_NT` int32 (N, T - 1), the piece that the model holds most likely at each place.
    """

    nll_nats_N: NDArray[np.float64]
    choices_NT: NDArray[np.int32]

    @property
    def nats_per_token(self) -> float:
        """The mean over all predicted tokens."""
        return float(self.nll_nats_N.sum() / self.choices_NT.size)


def predict_blocks(
    model: Any, blocks: NDArray[np.int32], batch_blocks: int, chunk_tokens: int, device: Device
) -> BlockPredictions:
    """Return the predictions of a model on blocks (N, T)."""
    nll_NT, choices_NT = predict_tokens(model, blocks, batch_blocks, chunk_tokens, device)
    return BlockPredictions(nll_NT.sum(axis=1, dtype=np.float64), choices_NT)


def predict_tokens(
    model: Any,
    blocks: NDArray[np.int32],
    batch_blocks: int,
    chunk_tokens: int,
    device: Device,
    on_batch: Callable[[int], None] | None = None,
    kept_V: Tensor | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the nats of each token but the first and the first choices, both (N, T - 1).

    `kept_V` is as in `tasks.models.predict.predicting`: blocks and choices are in the student's tokens.
    """
    model.eval().to(device.device)
    nll, choices = [], []
    with torch.inference_mode(), device.autocast():
        for start in range(0, len(blocks), batch_blocks):
            batch = np.asarray(blocks[start : start + batch_blocks], dtype=np.int64)
            ids_BT = torch.from_numpy(batch).to(device.device)
            head, targets_N = predicting(model, ids_BT, kept_V), next_tokens(ids_BT)
            chunks = zip(head.hidden_ND.split(chunk_tokens), targets_N.split(chunk_tokens), strict=True)
            parts = [_token_predictions(hidden @ head.weight_VD.T, targets) for hidden, targets in chunks]
            nll_N, choices_N = map(torch.cat, zip(*parts, strict=True))
            nll.append(nll_N.reshape(len(batch), -1).cpu().numpy())
            choices.append(choices_N.reshape(len(batch), -1).int().cpu().numpy())
            if on_batch is not None:
                on_batch(start + len(batch))
    return np.concatenate(nll), np.concatenate(choices)


def _token_predictions(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood of each target and the most likely piece."""
    nll_N = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return nll_N, logits_NV.argmax(dim=-1)
