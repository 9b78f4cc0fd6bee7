"""Every family: blocks of layers tried from remembered states give, bit for bit, what the model without them gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.models.architectures import layers_of, without_layers
from tasks.models.checkpoint import load_causal_lm, load_classifier
from tasks.pruning.depth import without_each
from tests.causal import DECODERS, write_decoder
from tests.families import CONFIGS, write_family
from tests.property.test_families import IDS, MASK

BLOCKS = [{1}, {2}, {1, 2}]


def the_model(kind: str, name: str, folder: Path) -> Any:
    if kind == "classifier":
        return load_classifier(write_family(name, folder)).eval()
    return load_causal_lm(write_decoder(name, folder)).eval()


@pytest.mark.parametrize(
    ("kind", "name"), [*(("classifier", name) for name in CONFIGS), *(("language model", name) for name in DECODERS)]
)
def test_blocks_are_missed_as_by_a_model_without_them(tmp_path: Path, kind: str, name: str) -> None:
    model = the_model(kind, name, tmp_path / "model")
    ran: list[int] = []
    for number, layer in enumerate(layers_of(model)[1]):
        forward = layer.forward

        def counted(*args: Any, _n: int = number, _forward: Any = forward, **more: Any) -> Any:
            ran.append(_n)
            return _forward(*args, **more)

        layer.forward = counted

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=IDS, attention_mask=MASK).logits

    expected = []
    for block in BLOCKS:
        with without_layers(model, block):
            expected.append(run())
    before = run()
    assert not torch.equal(before, expected[0]), "a layer that does nothing proves nothing"
    ran.clear()
    whole, found = without_each(model, BLOCKS, run)
    assert ran == [0, 1, 2, 2], "layers below a block run once, in the whole model"
    assert torch.equal(whole, before)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    ran.clear()
    assert torch.equal(run(), before), "the model is as it was"
    assert ran == [0, 1, 2], "and so is the forward of every layer"


def test_the_first_layer_stays(tmp_path: Path) -> None:
    model = the_model("classifier", "bert", tmp_path / "model")
    with pytest.raises(AssertionError, match="reads the embeddings"):
        without_each(model, [{0, 1}], lambda: None)
