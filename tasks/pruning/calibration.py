"""Collects what criteria look at, from the weights of a model and from passes over its calibration rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.data.tokens import TokenSet, bucketed
from tasks.models.architectures import adapter_of, layers_of
from tasks.models.checkpoint import weights_of
from tasks.models.devices import Device
from tasks.models.predict import inputs_of
from tasks.progress import Progress
from tasks.pruning.criteria import Channels, Scores
from tasks.pruning.depth import harm_nats_per_row, influence, listening, without_each
from tasks.pruning.statistics import MaskGradient, MeanAbsolute, Squares, TokenNorm, weight_sums

BATCH_ROWS = 64
BATCH_BLOCKS = 8
Labels = NDArray[np.int64]
Inputs = dict[str, Tensor]  # as `inputs_of` returns them
Place = tuple[str, int]  # axis, number of the site


class Calibration:
    """The `Statistics` of a model: nothing is computed before a criterion asks for it."""

    batch_rows, unit = BATCH_ROWS, "rows"

    def __init__(
        self,
        model: Any,
        tokens: TokenSet,
        labels: Labels,
        device: Device,
        seed: int,
        blocks: Sequence[set[int]] = (),
        label: str = "calibration",
    ) -> None:
        """Take one label for each calibration row; -1 where there is none, which `mask_gradients` refuses.

        `blocks` are those that `harms` will be asked about: the first pass over the rows without gradients, whatever it is for,
        tries them as well. `label` names each pass where its progress is told.
        """
        self._model, self._tokens, self._labels, self._device = model.to(device.device), tokens, labels, device
        self._config = model.config.to_dict()
        self._adapter = adapter_of(self._config)
        self._sites = self._adapter.sites(model)
        self.num_heads: int = self._adapter.shape(self._config)["heads"]
        self.seed, self._label = seed, label
        self._untried, self._harms = list(blocks), dict[frozenset[int], float]()

    def mean_absolute(self) -> Channels:
        """Return the L2 norm over rows of the mean |activation| of a row's tokens; see `Statistics`."""
        means = self._activations(MeanAbsolute)
        if self._sites.pooler is None:
            return means
        # a pooler channel matters as far as the classifier listens to it
        return replace(means, pooler_D=means.pooler_D * _weight(self._sites.pooler).norm(dim=0).cpu())

    def token_norms(self) -> Channels:
        """Return the L2 norm of the activations over all tokens of all rows."""
        return self._activations(TokenNorm)

    def reader_weights(self) -> Channels:
        """Return for each channel the sum of |weight| over the matrix products that read it there."""
        sites = self._sites
        return Channels(
            ffn_LF=torch.stack([_read(module) for module in sites.ffn]),
            attention_LA=torch.stack([_read(module) for module in sites.attention]),
            hidden_SD=torch.stack([torch.stack([_read(m) for m in readers]).sum(dim=0) for _, readers in sites.hidden]),
            pooler_D=_read(sites.pooler) if sites.pooler else torch.zeros(0),
        )

    def weight_sums(self, power: int) -> Scores:
        """Return the sum of |weight|**power over all weights that go when the structure goes."""
        return weight_sums(weights_of(self._model), self._adapter.layout(self._config), self.num_heads, power)

    def mask_gradients(self) -> Scores:
        """Return the mean over rows of |d cross-entropy of the row / d mask of the structure|, nats."""
        sites = self._sites
        ffn, heads = [MaskGradient() for _ in sites.ffn], [MaskGradient(self.num_heads) for _ in sites.attention]
        hidden, pooler = MaskGradient(), MaskGradient()
        for rows in self._batches():
            seen: dict[Place, Tensor] = {}
            with torch.enable_grad(), self._watch(seen.__setitem__):
                loss = self._summed_loss(rows)
                gradients = torch.autograd.grad(loss, list(seen.values()))
            pairs = {place: (seen[place].detach(), g) for place, g in zip(seen, gradients, strict=True)}
            for (axis, number), pair in pairs.items():
                if axis in ("ffn", "attention"):
                    (ffn if axis == "ffn" else heads)[number].add(pair)
                elif axis == "pooler":
                    pooler.add((pair[0][:, None], pair[1][:, None]))
            hidden.add(*[pair for (axis, _), pair in pairs.items() if axis == "hidden"])
        return Scores(
            ffn_LF=torch.stack([a.mean() for a in ffn]),
            heads_LH=torch.stack([a.mean() for a in heads]),
            hidden_D=hidden.mean(),
            pooler_D=pooler.mean() if sites.pooler else torch.zeros(0),
        )

    def influences(self, candidates: Sequence[set[int]]) -> list[float]:
        """Return the Block Influence of each contiguous block of layers, a mean over all tokens, from one pass over the rows."""
        _, layers = layers_of(self._model)
        sums, count = [0.0] * len(candidates), 0.0
        for rows in self._batches():
            inputs, states = self._batch(rows), list[Tensor]()
            mask_BT = inputs["attention_mask"]
            first = layers[0].register_forward_pre_hook(lambda _module, inputs, into=states: into.append(inputs[0]))

            def leave(_module: Any, _inputs: Any, output: Any, into: list[Tensor] = states) -> None:
                into.append(output[0] if isinstance(output, tuple) else output)

            with listening([first, *(layer.register_forward_hook(leave) for layer in layers)]), torch.inference_mode():
                self._run(inputs)
            count += float(mask_BT.sum())
            for number, block in enumerate(candidates):
                influence_BT = influence(states[min(block)], states[max(block) + 1])
                sums[number] += float((influence_BT * mask_BT).sum())
        return [total / count for total in sums]

    def harms(self, candidates: Sequence[set[int]]) -> list[float]:
        """Return the harm of leaving out each contiguous block of layers, nats per row; see `harm_nats_per_row`."""
        new = [block for block in candidates if frozenset(block) not in self._harms]
        if new:
            self._untried += [block for block in new if block not in self._untried]
            self._pass(lambda _mask: nullcontext())
        return [self._harms[frozenset(block)] for block in candidates]

    def _pass(self, watching: Callable[[Tensor], AbstractContextManager[None]]) -> None:
        """Run all rows, each batch once in the context that `watching` gives for its mask, and without each untried block."""
        blocks, self._untried = self._untried, []
        answers: list[list[Tensor]] = []
        for rows in self._batches():
            inputs = self._batch(rows)
            contexts = chain([watching(inputs["attention_mask"])], repeat(nullcontext()))

            def run(inputs: Inputs = inputs, contexts: Any = contexts) -> Tensor:
                with torch.inference_mode(), next(contexts):
                    return self._run(inputs)

            whole, without = without_each(self._model, blocks, run)
            if blocks:
                answers.append([logits.float().cpu() for logits in (whole, *without)])
        if blocks:
            full, *others = (torch.cat(batches) for batches in zip(*answers, strict=True))
            for block, logits in zip(blocks, others, strict=True):
                self._harms[frozenset(block)] = harm_nats_per_row(full, logits)

    def _activations(self, kind: type[Squares]) -> Channels:
        """Return the roots of an accumulator a site, from one forward pass over all rows."""
        sums: dict[Place, Squares] = {}

        def add(mask_BT: Tensor, place: Place, values: Tensor) -> None:
            if place[0] == "pooler":  # one vector a row
                values, mask_BT = values[:, None], torch.ones(len(values), 1, device=values.device)
            sums.setdefault(place, kind()).add(values, mask_BT)

        self._pass(lambda mask_BT: self._watch(partial(add, mask_BT)))
        sites = self._sites
        return Channels(
            ffn_LF=torch.stack([sums["ffn", i].root() for i in range(len(sites.ffn))]),
            attention_LA=torch.stack([sums["attention", i].root() for i in range(len(sites.attention))]),
            hidden_SD=torch.stack([sums["hidden", i].root() for i in range(len(sites.hidden))]),
            pooler_D=sums["pooler", 0].root() if sites.pooler else torch.zeros(0),
        )

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each batch of one pass, and tell how far it is."""
        progress, done = Progress(self._label, len(self._tokens), self.unit), 0
        for rows in bucketed(self._tokens.lengths, self.batch_rows):
            yield rows
            done += len(rows)
            progress.update(done)

    def _batch(self, rows: NDArray[np.int64]) -> Inputs:
        """Return what the model reads of a batch: ids, mask and, where it knows them, types, each (B, T)."""
        return inputs_of(self._model, self._tokens, rows, self._device.device)

    def _run(self, inputs: Inputs) -> Tensor:
        """Return the logits of a batch, shape (B, C)."""
        logits_BC: Tensor = self._model(**inputs).logits
        return logits_BC

    def _summed_loss(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the cross-entropy of the labels of these rows, nats, summed."""
        assert (self._labels[rows] >= 0).all(), "every calibration row needs a label"
        targets_B = torch.from_numpy(self._labels[rows]).to(self._device.device)
        return nn.functional.cross_entropy(self._run(self._batch(rows)).float(), targets_B, reduction="sum")

    @contextmanager
    def _watch(self, tell: Callable[[Place, Tensor], None]) -> Iterator[None]:
        """Tell what passes each site in a forward pass: shape (B, T, X), of the pooler (B, X)."""
        sites = self._sites

        def tell_input(place: Place) -> Callable[..., None]:
            return lambda _module, inputs: tell(place, inputs[0])

        def tell_output(place: Place) -> Callable[..., None]:
            return lambda _module, _inputs, output: tell(place, output)

        handles = [m.register_forward_pre_hook(tell_input(("ffn", i))) for i, m in enumerate(sites.ffn)]
        handles += [m.register_forward_pre_hook(tell_input(("attention", i))) for i, m in enumerate(sites.attention)]
        handles += [m.register_forward_hook(tell_output(("hidden", i))) for i, (m, _) in enumerate(sites.hidden)]
        if sites.pooler is not None:
            handles.append(sites.pooler.register_forward_pre_hook(tell_input(("pooler", 0))))
        with listening(handles):
            yield


class BlockCalibration(Calibration):
    """The `Statistics` of a language model, whose calibration rows are blocks of tokens and their own labels."""

    batch_rows, unit = BATCH_BLOCKS, "blocks"

    def __init__(self, model: Any, blocks: NDArray[np.int32], device: Device, seed: int, label: str = "calibration") -> None:
        """Take blocks of shape (N, T)."""
        count, tokens = blocks.shape
        rows = TokenSet(blocks.reshape(-1), np.arange(count + 1, dtype=np.int64) * tokens)
        super().__init__(model, rows, np.zeros(0, dtype=np.int64), device, seed, label=label)

    def _run(self, inputs: Inputs) -> Tensor:
        """Return the last hidden states: what criteria look at lies below the head."""
        hidden_BTD: Tensor = self._model.base_model(**inputs, use_cache=False)[0]
        return hidden_BTD

    def _summed_loss(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the cross-entropy of the next token, nats, a mean over the tokens of a block, summed over blocks."""
        inputs = self._batch(rows)
        logits_BTV = self._model.get_output_embeddings()(self._run(inputs)[:, :-1])
        return nn.functional.cross_entropy(logits_BTV.float().flatten(0, 1), inputs["input_ids"][:, 1:].flatten()) * len(rows)


def _weight(module: Any) -> Tensor:
    """Return the weight of a matrix product as (outputs, inputs), fp32; GPT-2's Conv1D keeps it the other way round."""
    weight = module.weight.detach().float()
    return weight if isinstance(module, nn.Linear) else weight.T


def _read(module: nn.Module) -> Tensor:
    return _weight(module).abs().sum(dim=0).cpu()
