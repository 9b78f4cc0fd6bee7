"""Tries a language model's folder as its users will: a fresh process, stock classes; generation with and without cache.

deps: a model folder, data/sets | params: data | outs: rounds/<round>/exported with parity.json
A Llama-like model is also written as GGUF, which is loaded back and compared too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.data.documents import read_document_set
from tasks.exports.gguf import GGUF_FILE, gguf_refusal, rounded_to_float16, write_gguf
from tasks.exports.load_back import LoadBack
from tasks.files import read_json, write_json
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import pick
from tasks.params.causal_lm import CausalLMParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath
from tasks.stages.export import ATOL, max_difference

PARITY_TEXTS: Final = 8
PROMPT_TOKENS: Final = 32
NEW_TOKENS: Final = 16


def run(params: CausalLMParams, *, model: InPath, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return the content of parity.json. A broken promise is recorded there and left to the gate."""
    device = pick("cpu", "fp32", params.runtime.threads)
    texts = read_document_set(sets, "validation")["text"].tolist()[:PARITY_TEXTS]
    prompt, new = _lengths(params.data.block_tokens)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens = [tokenizer.encode(text).ids[:prompt] for text in texts]
    with LoadBack(model, texts, prompt, device.threads, new_tokens=new) as fresh:
        language_model = load_causal_lm(model)
        difference, mismatched = 0.0, 0
        found = fresh.arrays()
        for number, ids in enumerate(tokens):
            same = ids == found[f"ids_{number}"].tolist()
            mine = (
                max_difference(_logits(language_model, ids), found[f"logits_{number}"])
                if same
                else float(np.finfo(np.float64).max)
            )
            difference = max(difference, mine)
            mismatched += int((found[f"cached_{number}"] != found[f"plain_{number}"]).sum())
    parity = {
        "rows": len(texts),
        "atol": ATOL,
        "load_back_max_difference": difference,
        "generated_tokens": new * len(texts),
        "cache_mismatched_tokens": mismatched,
    }
    parity |= _gguf_parity(language_model, model, out, texts, tokens, device.threads)
    write_json(out / "parity.json", parity)
    say(
        f"export: load-back differs by {difference:.1e}; {mismatched} of {parity['generated_tokens']} tokens differ "
        "without the cache"
    )
    return parity


def _logits(model: Any, ids: list[int]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    return found


def _gguf_parity(
    model: Any, folder: Path, out: Path, texts: list[str], tokens: list[list[int]], threads: int
) -> dict[str, Any]:
    """Write the GGUF file and return what parity.json says of it, or why there is none.

    `gguf_max_difference` is to the model with the same rounding: what is not rounding is a mistake. What the rounding to float16
    costs is `gguf_rounding_max_difference`.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    refusal = gguf_refusal(model.config.to_dict(), tokenizer)
    if refusal is not None:
        say(f"export: no GGUF file: {refusal}")
        return {"gguf_not_written": refusal}
    write_gguf(model, tokenizer, out / GGUF_FILE)
    longest = max(map(len, tokens))
    with LoadBack(out, texts, longest, threads, new_tokens=1, gguf=(GGUF_FILE, tokens)) as fresh:
        exact = [_logits(model, ids) for ids in tokens]
        rounded = [_logits(rounded_to_float16(model), ids) for ids in tokens]
        found = fresh.arrays()
    pairs = [found[f"logits_{number}"] for number in range(len(tokens))]
    alike = [found[f"own_{number}"].tolist() == ids for number, ids in enumerate(tokens)]
    facts = {
        "gguf_texts_tokenised_alike": sum(alike),
        "gguf_max_difference": max(max_difference(a, b) for a, b in zip(rounded, pairs, strict=True)),
        "gguf_rounding_max_difference": max(max_difference(a, b) for a, b in zip(exact, pairs, strict=True)),
        "gguf_bytes": (out / GGUF_FILE).stat().st_size,
    }
    say(f"export: {GGUF_FILE} differs by {facts['gguf_max_difference']:.1e} from the same weights in float16")
    return facts


def _lengths(block_tokens: int) -> tuple[int, int]:
    """Return prompt and new tokens, together no longer than a block: a model may know no more positions."""
    new = min(NEW_TOKENS, block_tokens // 2)
    return min(PROMPT_TOKENS, block_tokens - new), new
