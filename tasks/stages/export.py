"""Exports a model in the forms that its users read, and tries each against it: the load-back contract.

A classifier becomes ONNX (fp32 and dynamic int8), a Llama-like language model GGUF. The folder itself is loaded in a fresh
process with stock classes; a language model there continues texts with and without its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.data.frames import read_sets
from tasks.data.pairs import texts_of
from tasks.exports import causal_lm, classification
from tasks.files import write_json
from tasks.models.devices import pick
from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath

# each takes texts as its task has them: strings, or pairs
Export = Callable[[Path, Any, Mapping[str, Any], int, Path], dict[str, Any]]
EXPORT: Final[Mapping[str, Export]] = {CLASSIFICATION: classification.export, CAUSAL_LM: causal_lm.export}


def run(params: ClassificationParams | CausalLMParams, *, model: InPath, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return the content of parity.json. A broken promise is recorded there and left to the gate."""
    device = pick("cpu", "fp32", params.runtime.threads)  # the files are read by CPU runtimes
    texts = texts_of(read_sets(sets, ["validation"])["validation"])
    out.mkdir(parents=True, exist_ok=True)
    parity = EXPORT[params.task](model, texts, params.data.model_dump(), device.threads, out)
    write_json(out / "parity.json", parity)
    return parity
