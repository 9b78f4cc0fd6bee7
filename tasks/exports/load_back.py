"""Loads a model folder as its users will: a fresh process, stock classes, nothing of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.pairs import Text
from tasks.errors import StageError

SECONDS: Final = 600
ATOL: Final = 1e-4  # by how much logits may differ that are meant to be the same
LARGEST: Final = float(np.finfo(np.float64).max)

Logits = NDArray[np.float32]

# What a user would type. It stays a string so that no module of this project can slip into the process.
PROGRAM: Final = """
import json, sys
import numpy, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
model = AutoModelForSequenceClassification.from_pretrained(request["folder"], dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(request["folder"])

def logits(texts):
    columns = [list(column) for column in zip(*texts)] if texts and isinstance(texts[0], list) else [texts]
    batch = tokenizer(*columns, truncation=True, max_length=request["max_tokens"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask"]
    if len(columns) > 1 and "token_type_ids" in batch and (getattr(model.config, "type_vocab_size", None) or 0) > 1:
        names.append("token_type_ids")  # which of the two texts a token is of
    return model(**{name: batch[name] for name in names}).logits.numpy()

with torch.inference_mode():
    together = logits(request["texts"])
    alone = [logits([text])[0] for text in request["alone"]]
assert "tasks" not in sys.modules, "the process must be free of compactlm"
numpy.savez(request["out"], together=together, alone=numpy.array(alone, numpy.float32))
"""

# Texts one by one, as a language model has no padding of its own; the files must also continue them, cached or not.
CAUSAL_PROGRAM: Final = """
import json, sys
import numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
packed = {} if request["gguf"] is None else {"gguf_file": request["gguf"]}
model = AutoModelForCausalLM.from_pretrained(request["folder"], dtype=torch.float32, **packed).eval()
tokenizer = AutoTokenizer.from_pretrained(request["folder"], **packed)
answers = {}
for number, text in enumerate(request["texts"]):
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, : request["max_tokens"]]
    answers[f"own_{number}"] = ids[0].numpy()
    if request["ids"] is not None:
        ids = torch.tensor([request["ids"][number]])
    answers[f"ids_{number}"] = ids[0].numpy()
    with torch.inference_mode():
        answers[f"logits_{number}"] = model(input_ids=ids).logits[0].numpy()
        for name, use_cache in (("cached", True), ("plain", False)):
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=use_cache,
                max_new_tokens=request["new_tokens"], min_new_tokens=request["new_tokens"], pad_token_id=0,
            )
            answers[f"{name}_{number}"] = made[0, ids.shape[1] :].numpy()
assert "tasks" not in sys.modules, "the process must be free of compactlm"
with open(request["out"], "wb") as file:
    numpy.savez(file, **answers)
"""


class Answer(NamedTuple):
    """What a fresh process says of one text: its own ids and those it read, their logits (T, V), and how it goes on."""

    own: NDArray[np.int64]
    ids: NDArray[np.int64]
    logits: Logits
    cached: NDArray[np.int64]
    plain: NDArray[np.int64]


class LoadBack:
    """A fresh process at work; it starts at once and is waited for in `logits`, so other work can go on meanwhile.

    It runs `texts`, or pairs of them, as one batch, and those of `alone` one by one, as users ask. With `new_tokens` the folder
    is a language model's, which also continues each text: `answers`. With `gguf`, the name of a file and the tokens of each text,
    the model is that file's, and reads these tokens.
    """

    def __init__(
        self,
        folder: Path,
        texts: Sequence[Text],
        max_tokens: int,
        threads: int,
        alone: Sequence[Text] = (),
        new_tokens: int | None = None,
        gguf: tuple[str, list[list[int]]] | None = None,
    ) -> None:
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="compactlm-load-back-")
        self._out = Path(self._scratch.name) / "logits.npz"
        self._log = Path(self._scratch.name) / "stderr.txt"
        request: dict[str, Any] = {
            "folder": str(folder.resolve()),
            "texts": list(texts),
            "alone": list(alone),
            "out": str(self._out),
        }
        request |= {"max_tokens": max_tokens, "threads": threads, "new_tokens": new_tokens}
        request["gguf"], request["ids"] = gguf or (None, None)
        program = PROGRAM if new_tokens is None else CAUSAL_PROGRAM
        with self._log.open("wb") as log:
            # -I: neither the working directory nor PYTHON* variables decide what is imported.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self._scratch.name,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        assert self._process.stdin is not None, "stdin was asked for"
        with self._process.stdin as pipe:
            pipe.write(json.dumps(request).encode())

    def __enter__(self) -> LoadBack:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._scratch.cleanup()

    def logits(self) -> tuple[Logits, Logits]:
        """Return the logits of the batch and of the texts run alone, each (rows, classes); StageError if it failed."""
        arrays = self._arrays()
        return arrays["together"], arrays["alone"]

    def answers(self) -> list[Answer]:
        """Return what a language model says of each text; StageError as `logits`."""
        arrays = self._arrays()
        texts = range(len(arrays) // len(Answer._fields))
        return [Answer(*(arrays[f"{name}_{number}"] for name in Answer._fields)) for number in texts]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        try:
            code = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise StageError("export", f"{self._folder} did not load in a fresh process within {SECONDS} s") from None
        if code != 0:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise StageError(
                "export",
                f"{self._folder} does not load in a fresh process with the stock model class and AutoTokenizer "
                f"(exit code {code}):\n" + "\n".join(words),
            )
        with np.load(self._out) as arrays:
            return dict(arrays)


def max_difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the largest absolute difference, shortened to three digits; a NaN counts as the largest float there is."""
    largest = float(np.abs(first.astype(np.float64) - second).max())
    return float(f"{largest:.3g}") if np.isfinite(largest) else LARGEST
