"""The served form of a language model: MLflow copies this file beside the weights and runs it to load them.

It stands alone (nothing of this project is imported), so a version can be served where only its requirements are installed.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

NEW_TOKENS = 64


class TextGenerator(PythonModel):  # type: ignore[misc]
    """Continues text with a stock transformers model folder."""

    def load_context(self, context: Any) -> None:
        """Load weights and tokenizer from the version's own files, never from a network."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = context.artifacts["model"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row a text: its greedy `continuation` by at most 64 tokens."""
        import torch

        longest = int(self.model.config.max_position_embeddings)
        continuations = []
        for text in list(model_input):
            ids = self.tokenizer(text, return_tensors="pt")["input_ids"][:, -max(1, longest - NEW_TOKENS) :]
            room = min(NEW_TOKENS, longest - ids.shape[1])
            with torch.no_grad():
                made = self.model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=room
                )
            continuations.append(self.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
        return pd.DataFrame({"continuation": continuations})


mlflow.models.set_model(TextGenerator())
