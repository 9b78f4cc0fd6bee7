"""What the families of decoders tell of a language model, whose head is as wide as the vocabulary and often tied."""

from __future__ import annotations

from typing import Any, Final

from tasks.models.architectures import FAMILIES, adapter_of
from tasks.models.architectures.family import Config
from tasks.models.shapes import Shape

DECODERS: Final = tuple(name for name, family in FAMILIES.items() if family.READS == "last")


def is_tied(config: Config) -> bool:
    """Return whether the head shares the weight of the embedding; GPT-2's does unless its config says otherwise."""
    return bool(config.get("tie_word_embeddings", config["model_type"] == "gpt2"))


def count_parameters(config: Config, new_shape: Shape) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a language model of this shape; a tied head counts once."""
    counted = adapter_of(config).count_parameters(config, new_shape, 0)
    head = 0 if is_tied(config) else new_shape["vocabulary"] * new_shape["hidden"]
    return {name: number + head for name, number in counted.items()}


def flops_per_token(config: Config, tokens: int) -> int:
    """Return the FLOPs of one forward pass over a block of T tokens, head included, divided by T."""
    family = adapter_of(config)
    return family.flops_per_example(config, tokens, family.shape(config)["vocabulary"]) // tokens


def touch_read_rows_alone(model: Any) -> None:
    """Make the gradient of embeddings that are the head too hold the rows of a batch alone, where it is added to the head's.

    As a tensor of its own it is as wide as the vocabulary and nearly all zeros. Of embeddings that are no head it stays whole:
    the optimiser takes no other.
    """
    embeddings = model.get_input_embeddings()
    if embeddings.weight is model.get_output_embeddings().weight:
        embeddings.sparse = True


def new_config(shape: Shape, block_tokens: int) -> dict[str, Any]:
    """Return the config of a GPT-2 of this shape for blocks of this length; the end of text has id 0."""
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_positions": block_tokens,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        "tie_word_embeddings": True,
    }
    return adapter_of(config).resized(config, shape)
