"""Tries a language model's folder as its users will: a fresh process, stock classes; generation with and without cache.

deps: a model folder, data/sets | params: data | outs: rounds/<round>/exported with parity.json
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from tasks.data.documents import read_document_set
from tasks.export import ATOL, max_difference
from tasks.lineage.files import write_json
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import pick
from tasks.models.load_back import LoadBack
from tasks.params_causal import CausalParams
from tasks.progress import say
from tasks.stage import InPath, OutPath

PARITY_TEXTS: Final = 8
PROMPT_TOKENS: Final = 32
NEW_TOKENS: Final = 16


def run(params: CausalParams, *, model: InPath, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return the content of parity.json. A broken promise is recorded there and left to the gate."""
    device = pick("cpu", "fp32", params.runtime.threads)
    texts = read_document_set(sets, "validation")["text"].tolist()[:PARITY_TEXTS]
    prompt, new = _lengths(params.data.block_tokens)
    out.mkdir(parents=True, exist_ok=True)
    with LoadBack(model, texts, prompt, device.threads, new_tokens=new) as fresh:
        language_model = load_causal_lm(model)
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        difference, mismatched = 0.0, 0
        found = fresh.arrays()
        for number, text in enumerate(texts):
            ids = tokenizer.encode(text).ids[:prompt]
            same = ids == found[f"ids_{number}"].tolist()
            with torch.inference_mode():
                logits = language_model(input_ids=torch.tensor([ids])).logits[0].numpy()
            mine = max_difference(logits, found[f"logits_{number}"]) if same else float(np.finfo(np.float64).max)
            difference = max(difference, mine)
            mismatched += int((found[f"cached_{number}"] != found[f"plain_{number}"]).sum())
    parity = {
        "rows": len(texts), "atol": ATOL, "load_back_max_difference": difference,
        "generated_tokens": new * len(texts), "cache_mismatched_tokens": mismatched,
    }  # fmt: skip
    write_json(out / "parity.json", parity)
    say(
        f"export: load-back differs by {difference:.1e}; {mismatched} of {parity['generated_tokens']} tokens differ "
        "without the cache"
    )
    return parity


def _lengths(block_tokens: int) -> tuple[int, int]:
    """Return prompt and new tokens, together no longer than a block: a model may know no more positions."""
    new = min(NEW_TOKENS, block_tokens // 2)
    return min(PROMPT_TOKENS, block_tokens - new), new
