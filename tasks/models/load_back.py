"""Loads a model folder as its users will: a fresh process, stock classes, nothing of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.errors import StageError

SECONDS: Final = 600

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
    batch = tokenizer(texts, truncation=True, max_length=request["max_tokens"], padding=True, return_tensors="pt")
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()

with torch.inference_mode():
    together = logits(request["texts"])
    alone = [logits([text])[0] for text in request["alone"]]
assert "tasks" not in sys.modules, "the process must be free of compactlm"
numpy.savez(request["out"], together=together, alone=numpy.array(alone, numpy.float32))
"""


class LoadBack:
    """A fresh process at work; it starts at once and is waited for in `logits`, so other work can go on meanwhile.

    It runs `texts` as one batch, and those of `alone` one by one, as users ask.
    """

    def __init__(
        self, folder: Path, texts: Sequence[str], max_tokens: int, threads: int, alone: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="compactlm-load-back-")
        self._out = Path(self._scratch.name) / "logits.npz"
        self._log = Path(self._scratch.name) / "stderr.txt"
        request = {
            "folder": str(folder.resolve()), "texts": list(texts), "max_tokens": max_tokens, "threads": threads,
            "out": str(self._out), "alone": list(alone),
        }  # fmt: skip
        with self._log.open("wb") as log:
            # -I: neither the working directory nor PYTHON* variables decide what is imported.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                cwd=self._scratch.name, env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
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
        try:
            code = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise StageError("export", f"{self._folder} did not load in a fresh process within {SECONDS} s") from None
        if code != 0:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise StageError(
                "export",
                f"{self._folder} does not load in a fresh process with stock AutoModelForSequenceClassification and "
                f"AutoTokenizer (exit code {code}):\n" + "\n".join(words),
            )
        with np.load(self._out) as found:
            return found["together"], found["alone"]
