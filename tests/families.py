"""A tiny model of every supported family, with random, well-spread weights and a tokenizer of its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

from tasks.models.checkpoint import classifier_from_config
from tests.conftest import tiny_config, tiny_tokenizer, write_tokenizer_files

END = "<|endoftext|>"
ENCODERS = ("bert", "distilbert", "roberta", "mpnet")
HEADS, FFN, LAYERS, HEAD_SIZE = 4, 48, 3, 8


def bytes_tokenizer() -> dict[str, Any]:
    """Return a byte-level BPE tokenizer.json of the 256 bytes, one merge, and the end of text; id 0 is "!", as in GPT-2."""
    pieces = [*sorted(ByteLevel.alphabet()), "th"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(pieces), "content": END, **token}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {piece: i for i, piece in enumerate([*pieces, END])},
            "merges": [["t", "h"]],
        },
    }


def roberta_tokenizer() -> dict[str, Any]:
    """Return the same with RoBERTa's special tokens, which come first, and its post-processor."""
    tokenizer = bytes_tokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*specials, *(piece for piece in tokenizer["model"]["vocab"] if piece != END), "<mask>"]
    tokenizer["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    tokenizer["added_tokens"] = [
        {**tokenizer["added_tokens"][0], "id": pieces.index(token), "content": token} for token in (*specials, "<mask>")
    ]
    ends = {"sep": ["</s>", 2], "cls": ["<s>", 0]}
    tokenizer["post_processor"] = {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}
    return tokenizer


def mpnet_tokenizer() -> dict[str, Any]:
    """Return a WordPiece tokenizer.json with MPNet's special tokens, and its post-processor; [UNK] stands among the pieces."""
    tokenizer = tiny_tokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*specials, *(piece for piece in tokenizer["model"]["vocab"] if piece not in ("[CLS]", "[SEP]", "[MASK]")), "<mask>"]
    tokenizer["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    tokenizer["added_tokens"] = [
        {**tokenizer["added_tokens"][0], "id": pieces.index(token), "content": token} for token in (*specials, "[UNK]", "<mask>")
    ]
    ends = {"sep": ["</s>", 2], "cls": ["<s>", 0]}
    tokenizer["post_processor"] = {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}
    return tokenizer


BYTES = 258
DISTILBERT = {
    "model_type": "distilbert",
    "architectures": ["DistilBertForSequenceClassification"],
    "pad_token_id": 0,
    "vocab_size": len(tiny_tokenizer()["model"]["vocab"]),
    "max_position_embeddings": 64,
    "dim": HEADS * HEAD_SIZE,
    "n_heads": HEADS,
    "hidden_dim": FFN,
    "n_layers": LAYERS,
}
ROBERTA = {
    "model_type": "roberta",
    "architectures": ["RobertaForSequenceClassification"],
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "vocab_size": len(roberta_tokenizer()["model"]["vocab"]),
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "hidden_size": HEADS * HEAD_SIZE,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
}
MPNET = {
    "model_type": "mpnet",
    "architectures": ["MPNetForSequenceClassification"],
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "vocab_size": len(mpnet_tokenizer()["model"]["vocab"]),
    "max_position_embeddings": 66,
    "hidden_size": HEADS * HEAD_SIZE,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
}
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2ForSequenceClassification"],
    "vocab_size": BYTES,
    "n_positions": 64,
    "n_embd": HEADS * HEAD_SIZE,
    "n_head": HEADS,
    "n_inner": FFN,
    "n_layer": LAYERS,
    "bos_token_id": BYTES - 1,
    "eos_token_id": BYTES - 1,
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForSequenceClassification"],
    "vocab_size": BYTES,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HEAD_SIZE,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "bos_token_id": BYTES - 1,
    "eos_token_id": BYTES - 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": tiny_config(len(tiny_tokenizer()["model"]["vocab"])),
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "mpnet": MPNET,
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama_one_group": {**LLAMA, "num_key_value_heads": 1},
    "llama_no_groups": {**LLAMA, "num_key_value_heads": HEADS, "head_dim": 16},
    "llama_biases": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "qwen2": {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]},
    "qwen3": {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], "head_dim": 16},
    "mistral": {**LLAMA, "model_type": "mistral", "architectures": ["MistralForSequenceClassification"]},
}


def write_family(name: str, folder: Path) -> Path:
    """Write the tiny model of a family and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "roberta":
        (folder / "tokenizer.json").write_text(json.dumps(roberta_tokenizer()))
        settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 64, "add_prefix_space": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    elif name == "mpnet":
        names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "[UNK]", "pad": "<pad>", "mask": "<mask>"}
        settings = {f"{role}_token": token for role, token in names.items()} | {"do_lower_case": True, "model_max_length": 64}
        write_tokenizer_files(mpnet_tokenizer(), folder)
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MPNetTokenizer", **settings}))
    elif name in ENCODERS:
        write_tokenizer_files(tiny_tokenizer(), folder)
    else:
        (folder / "tokenizer.json").write_text(json.dumps(bytes_tokenizer()))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "model_max_length": 64}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = classifier_from_config(CONFIGS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return folder
