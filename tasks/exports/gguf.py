"""The one door to gguf: writes a Llama-like language model as one GGUF file, its matrices as float16.

The package is optional (extra `decoder`). What stock readers could not take back as it is, is not written, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data.byte_pairs import ids_of, is_byte_level, merges_of
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import weights_of

GGUF_FILE: Final = "model.f16.gguf"
FAMILIES: Final = ("llama", "mistral")
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of the format


def gguf_refusal(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str | None:
    """Return why no GGUF file is written of a language model, None where one is."""
    if find_spec("gguf") is None:
        return "the package gguf is not installed: pip install 'compactlm[decoder]'"
    if config["model_type"] not in FAMILIES:
        return (
            f"of model_type {config['model_type']!r}; stock readers take the shapes of {', '.join(FAMILIES)} alone back "
            "from the file"
        )
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "the model has biases, which stock readers expect in no such file"
    if (config.get("rope_parameters") or {}).get("rope_type", "default") != "default":
        return "the model's rotary positions are scaled"
    if not tokenizer["model"].get("merges"):
        return "the tokenizer has no merges, and stock readers take that for another kind"
    if splitting_of(tokenizer) is None:
        return "the tokenizer does not split texts in a way that the format has a name for"
    return None


def splitting_of(tokenizer: Mapping[str, Any]) -> str | None:
    """Return the name by which the format calls how a byte-level tokenizer splits texts into words, None if it has none."""
    processor = tokenizer.get("post_processor")
    if not is_byte_level(tokenizer) or (processor is not None and processor["type"] != "ByteLevel"):
        return None
    splitter = tokenizer["pre_tokenizer"]
    steps = splitter.get("pretokenizers", [splitter])
    if any(step["type"] == "ByteLevel" and not step.get("use_regex", True) for step in steps):
        return None
    return {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}.get(tuple(step["type"] for step in steps))


def write_gguf(model: Any, tokenizer: Mapping[str, Any], out: Path) -> None:
    """Write a model that `gguf_refusal` has nothing against: float16 matrices, fp32 norms, and the tokenizer."""
    import gguf

    config = model.config.to_dict()
    adapter = adapter_of(config)
    shape, groups = adapter.shape(config), int(config["num_key_value_heads"])
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name("compactlm")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["ffn"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(groups)
    writer.add_key_length(adapter.head_size(config))
    writer.add_value_length(adapter.head_size(config))
    writer.add_rope_dimension_count(adapter.head_size(config))
    writer.add_rope_freq_base(float(config["rope_parameters"]["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    _add_tokenizer(writer, tokenizer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape["layers"])
    for name, weight in weights_of(model).items():
        values: NDArray[Any] = weight.float().numpy()
        if ".q_proj." in name or ".k_proj." in name:
            values = _paired(values, shape["heads"] if ".q_proj." in name else groups)
        if values.ndim > 1:
            values = values.astype(np.float16)
        known = names.get_name(name, try_suffixes=(".weight",))
        assert known is not None, f"the format has no name for {name}"
        writer.add_tensor(known, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded_to_float16(model: Any) -> Any:
    """Return the model, its matrices rounded in place as in the file."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.half().float())
    return model


def _paired(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return query or key rows in the order of the format: channels that rotate together stand side by side in a head."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _add_tokenizer(writer: Any, tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    size = int(config["vocab_size"])
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for token, number in ids_of(tokenizer).items():
        tokens[number], types[number] = token, NORMAL
    for added in tokenizer["added_tokens"]:
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting_of(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merges_of(tokenizer)])
    writer.add_add_bos_token(False)
    for key, add in (
        ("bos_token_id", writer.add_bos_token_id),
        ("eos_token_id", writer.add_eos_token_id),
        ("pad_token_id", writer.add_pad_token_id),
    ):
        value = config.get(key)
        if value is not None:
            add(int(value[0] if isinstance(value, list) else value))
