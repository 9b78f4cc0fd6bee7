"""Attention over short blocks as matrix products: what it computes, and when it steps aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.models.checkpoint import load_causal_lm, read_config
from tasks.models.devices import Device
from tasks.training import attention
from tasks.training.attention import LONGEST, attend_in_short_blocks
from tasks.training.causal_lm import Imitated, blocks_loss
from tasks.training.chunked_loss import Recipe
from tasks.training.lesson import without_dropout
from tests.causal import DECODERS, write_decoder

BF16, FP32 = (Device(torch.device("cpu"), precision, 1) for precision in ("bf16", "fp32"))
IDS = torch.arange(48).reshape(2, 24) % 37 + 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("decoders")
    return {name: write_decoder(name, place / name) for name in DECODERS}


def learnt(model: Any, device: Device) -> list[torch.Tensor]:
    """Return the logits of whole blocks and the gradients of a step on them, fp32."""
    without_dropout(model).train()
    with device.autocast():
        logits = model(input_ids=IDS, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), IDS[:, 1:].flatten()).backward()
    gradients = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
    return [logits.detach().float(), torch.cat(gradients)]


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", DECODERS)
def test_logits_and_gradients_are_as_near_to_exact_ones_as_those_of_the_fused_kernel(
    folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, fused, short = (load_causal_lm(folders[name]) for _ in range(3))
    attend_in_short_blocks(short, BF16)
    expected, usual = learnt(exact, FP32), learnt(fused, BF16)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)  # what is tested does not step aside
    for of_exact, of_fused, of_short in zip(expected, usual, learnt(short, BF16), strict=True):
        assert 0.0 < relative_error(of_short, of_exact) < 1.5 * relative_error(of_fused, of_exact) < 0.15


@pytest.mark.parametrize("name", DECODERS)
def test_padding_long_blocks_single_tokens_and_fp32_go_to_the_fused_kernel(folders: dict[str, Path], name: str) -> None:
    fused, short = load_causal_lm(folders[name]), load_causal_lm(folders[name])
    attend_in_short_blocks(short, BF16)
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0
    long = torch.arange(LONGEST + 1)[None] % 37 + 3
    longest = read_config(folders[name]).get("n_positions", LONGEST + 1)  # GPT-2's positions are learnt
    calls: list[dict[str, Any]] = [{"attention_mask": mask, "input_ids": IDS}, {"input_ids": IDS[:, :1]}]
    calls += [{"input_ids": long}] if longest > LONGEST else []
    with torch.no_grad():
        for call in calls:
            with BF16.autocast():
                assert torch.equal(short(**call).logits, fused(**call).logits)
        assert torch.equal(short(input_ids=IDS).logits, fused(input_ids=IDS).logits)
        again = fused.generate(IDS[:, :6], max_new_tokens=8, do_sample=False)
        assert torch.equal(short.generate(IDS[:, :6], max_new_tokens=8, do_sample=False), again)


def test_what_is_saved_says_nothing_of_it(folders: dict[str, Path], tmp_path: Path) -> None:
    model = load_causal_lm(folders["llama"])
    attend_in_short_blocks(model, BF16)
    assert model.config._attn_implementation == attention.NAME
    model.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("device", [FP32, Device(torch.device("meta"), "bf16", 1)])
def test_elsewhere_attention_stays_as_it_was(folders: dict[str, Path], device: Device) -> None:
    model = load_causal_lm(folders["llama"])
    before = model.config._attn_implementation
    attend_in_short_blocks(model, device)
    assert model.config._attn_implementation == before


def test_the_training_of_blocks_attends_so_in_both_models(folders: dict[str, Path]) -> None:
    student, teacher = load_causal_lm(folders["llama"]), load_causal_lm(folders["llama"])
    recipe = Recipe("forward_kl", 1.0, 1.0, 16, torch.bfloat16)
    loss = blocks_loss(student, Imitated(teacher), recipe, BF16, lambda _rows: IDS)
    assert [model.config._attn_implementation for model in (student, teacher)] == [attention.NAME] * 2
    with BF16.autocast():
        assert loss(student, np.arange(len(IDS))).item() == pytest.approx(0.0, abs=0.05)
