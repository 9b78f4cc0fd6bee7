"""The one door to transformers: loads and saves models and tokenizers as plain Hugging Face folders."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a stage reads what `fetch` brought, never the network

import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import SourceError

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

AS_IT_IS: Final = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def load_classifier(folder: Path, num_labels: int | None = None, labels: dict[int, str] | None = None) -> Any:
    """Return the sequence classifier of a folder, fp32, in eval mode.

    With `num_labels`, a missing head is made from the current torch seed; without it the folder must have one.
    Only safetensors are read and no code of the folder is run.
    """
    extra: dict[str, Any] = {}
    if num_labels is not None:
        names = labels or {i: f"LABEL_{i}" for i in range(num_labels)}
        extra = {"num_labels": num_labels, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    model = AutoModelForSequenceClassification.from_pretrained(folder, **AS_IT_IS, **extra)
    if model.config.pad_token_id is None:
        # A decoder classifies by its last token that is not padding, so one id must mean padding, in training and ever
        # after: the one that ends a text, which no text holds.
        model.config.pad_token_id = _first_end(
            model.config.eos_token_id,
            f"{folder / 'config.json'}: pad_token_id and eos_token_id are both missing; give pad_token_id the id of a "
            "token that no text holds",
        )
    return model.eval()


def end_id(config: Mapping[str, Any]) -> int:
    """Return the id that ends a text, by config.json; SourceError where there is none."""
    missing = "teacher.model: config.json: eos_token_id is missing; give it the id that ends a text"
    return _first_end(config.get("eos_token_id"), missing)


def _first_end(ends: int | list[int] | None, missing: str) -> int:
    first = ends[0] if isinstance(ends, list) else ends
    if first is None:
        raise SourceError(missing)
    return int(first)


def pad_id(model: Any) -> int:
    """Return the id that fills the short rows of a batch."""
    return int(model.config.pad_token_id or 0)


def attend_plainly(model: Any, device: torch.device) -> None:
    """Make the model compute attention as plain matrix products on a CPU; elsewhere nothing changes.

    At a classifier's lengths that is the faster way in bf16: the fused kernel of torch 2.13 is slow there, in its backward pass
    most of all. The results differ by rounding alone, and nothing of it is saved.
    """
    if device.type == "cpu":
        model.set_attn_implementation("eager")


def attend_with(model: Any, name: str, attention: Callable[..., Any]) -> None:
    """Make the model compute attention as `attention(fused, module, ...)`, with what transformers gives such a function.

    `fused` is the one that calls torch's own kernel, and takes the same. What tokens see is told as it is told to that one.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(name, functools.partial(attention, sdpa_attention_forward))
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def preload() -> None:
    """Import what every model needs now, so that the first one does not wait for it."""
    import transformers.modeling_layers
    import transformers.modeling_utils  # noqa: F401


def classifier_from_config(config: dict[str, Any]) -> Any:
    """Return a sequence classifier of this config with random weights from the current torch seed, in eval mode."""
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config)).eval()


def load_causal_lm(folder: Path) -> Any:
    """Return the language model of a folder, fp32, in eval mode; only safetensors are read and no code is run."""
    return AutoModelForCausalLM.from_pretrained(folder, **AS_IT_IS).eval()


def causal_lm_from_config(config: dict[str, Any]) -> Any:
    """Return a language model of this config with random weights from the current torch seed, in eval mode."""
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()


def unpack_gguf(file: Path, out: Path) -> None:
    """Write the language model of a GGUF file, de-quantised to fp32, and its tokenizer as a plain folder."""
    packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = packed.config.to_dict()
    config.pop("quantization_config", None)  # the weights are plain numbers now
    model = causal_lm_from_config(config)
    load_weights(model, weights_of(packed))
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights of a model on the CPU by name; of those that share their memory, the first alone."""
    by_memory: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in model.state_dict().items():
        by_memory.setdefault(value.data_ptr(), (name, value.detach().cpu().contiguous()))
    return dict(by_memory.values())


def load_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Give a model the weights that `weights_of` or its safetensors file holds; one that is tied follows the other."""
    tied = set(model.state_dict()) - set(weights_of(model))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= tied, f"weights are missing: {sorted(set(missing) - tied)}"
    assert not unexpected, f"the model has no {unexpected}"


def save_causal_lm(model: Any, tokenizer_folder: Path, out: Path) -> None:
    """Write a stock Hugging Face folder: config.json, model.safetensors and the tokenizer's files."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    copy_tokenizer(tokenizer_folder, out)


def save_classifier(model: Any, tokenizer_folder: Path, out: Path) -> None:
    """Write a stock Hugging Face folder: config.json, model.safetensors and the tokenizer's files."""
    save_causal_lm(model, tokenizer_folder, out)
    _name_padding(model, out)


def _name_padding(model: Any, folder: Path) -> None:
    """Give a byte-pair tokenizer, which has no padding token of its own, the model's; stock tokenizers refuse to pad else."""
    settings_file, tokenizer_file = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (settings_file.exists() and tokenizer_file.exists()):
        return
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    if tokenizer["model"].get("type") != "BPE" or settings.get("pad_token") is not None:
        return
    tokens = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    name = next(token for token, number in tokens.items() if number == pad_id(model))
    settings_file.write_text(json.dumps({**settings, "pad_token": name}, indent=1, sort_keys=True), encoding="utf-8")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files of a model folder."""
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source != out:
            shutil.copyfile(source / name, out / name)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
