"""Tries a language model's folder as its users will, generates with and without its cache, and writes GGUF where it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from tasks.exports.gguf import GGUF_FILE, gguf_refusal, rounded_to_float16, write_gguf
from tasks.exports.load_back import ATOL, LARGEST, LoadBack, Logits, max_difference
from tasks.files import read_json
from tasks.models.checkpoint import load_causal_lm
from tasks.progress import say

PARITY_TEXTS: Final = 8
PROMPT_TOKENS: Final = 32
NEW_TOKENS: Final = 16


def export(model: Path, texts: list[str], data: Mapping[str, Any], threads: int, out: Path) -> dict[str, Any]:
    """Write a GGUF file below `out` where the format has a place for the model, and return the content of parity.json.

    `data` is the section data of params.yaml as plain values.
    """
    texts, (prompt, new) = texts[:PARITY_TEXTS], _lengths(data["block_tokens"])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens = [tokenizer.encode(text).ids[:prompt] for text in texts]
    with LoadBack(model, texts, prompt, threads, new_tokens=new) as fresh:
        language_model = load_causal_lm(model)
        answers = fresh.answers()
    differences = [
        max_difference(_logits(language_model, ids), answer.logits) if ids == answer.ids.tolist() else LARGEST
        for ids, answer in zip(tokens, answers, strict=True)
    ]
    parity: dict[str, Any] = {
        "rows": len(texts),
        "atol": ATOL,
        "load_back_max_difference": max(differences),
        "generated_tokens": new * len(texts),
        "cache_mismatched_tokens": sum(int((answer.cached != answer.plain).sum()) for answer in answers),
    }
    description = read_json(model / "tokenizer.json")
    refusal = gguf_refusal(language_model.config.to_dict(), description)
    if refusal is None:
        write_gguf(language_model, description, out / GGUF_FILE)
        parity |= _gguf_parity(language_model, out, texts, tokens, threads)
    else:
        say(f"export: no GGUF file: {refusal}")
        parity["gguf_not_written"] = refusal
    say(
        f"export: load-back differs by {parity['load_back_max_difference']:.1e}; {parity['cache_mismatched_tokens']} of "
        f"{parity['generated_tokens']} tokens differ without the cache"
    )
    return parity


def _lengths(block_tokens: int) -> tuple[int, int]:
    """Return prompt and new tokens, together no longer than a block: a model may know no more positions."""
    new = min(NEW_TOKENS, block_tokens // 2)
    return min(PROMPT_TOKENS, block_tokens - new), new


def _logits(model: Any, ids: list[int]) -> Logits:
    with torch.inference_mode():
        logits: Logits = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    return logits


def _gguf_parity(model: Any, out: Path, texts: list[str], tokens: list[list[int]], threads: int) -> dict[str, Any]:
    """Return what parity.json says of the GGUF file; the matrices of the model are rounded in place.

    `gguf_max_difference` is to the model with the same rounding: what is not rounding is a mistake. What the rounding to float16
    costs is `gguf_rounding_max_difference`.
    """
    with LoadBack(out, texts, max(map(len, tokens)), threads, new_tokens=1, gguf=(GGUF_FILE, tokens)) as fresh:
        exact = [_logits(model, ids) for ids in tokens]
        rounded = [_logits(rounded_to_float16(model), ids) for ids in tokens]
        answers = fresh.answers()
    packed = [answer.logits for answer in answers]
    parity = {
        "gguf_texts_tokenised_alike": sum(answer.own.tolist() == ids for answer, ids in zip(answers, tokens, strict=True)),
        "gguf_max_difference": max(map(max_difference, packed, rounded)),
        "gguf_rounding_max_difference": max(map(max_difference, packed, exact)),
        "gguf_bytes": (out / GGUF_FILE).stat().st_size,
    }
    say(f"export: {GGUF_FILE} differs by {parity['gguf_max_difference']:.1e} from the same weights in float16")
    return parity
