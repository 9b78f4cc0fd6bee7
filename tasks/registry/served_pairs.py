"""The served form of a model that reads pairs: MLflow copies this file beside the weights and runs it to load them.

It stands alone (nothing of this project is imported), so a version can be served where only its requirements are installed.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class PairClassifier(PythonModel):  # type: ignore[misc]
    """Classifies pairs of texts with a stock transformers model folder."""

    def load_context(self, context: Any) -> None:
        """Load weights and tokenizer from the version's own files, never from a network."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = context.artifacts["model"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row a pair, of the columns `text` and `text_pair`: the most probable `label` and its `score`."""
        import torch

        config = self.model.config
        length = int(config.max_position_embeddings)
        if config.model_type in ("roberta", "mpnet"):  # which count positions from their padding id on
            length -= int(config.pad_token_id) + 1
        columns = (model_input[name].tolist() for name in ("text", "text_pair"))
        tokens = self.tokenizer(*columns, padding=True, truncation=True, max_length=length, return_tensors="pt")
        if int(getattr(config, "type_vocab_size", None) or 0) < 2:  # it does not tell the two texts apart by types
            tokens.pop("token_type_ids", None)
        with torch.no_grad():
            probabilities = self.model(**tokens).logits.float().softmax(dim=-1)
        scores, classes = probabilities.max(dim=-1)
        names = [str(self.model.config.id2label[int(index)]) for index in classes]
        return pd.DataFrame({"label": names, "score": scores.double().tolist()})


mlflow.models.set_model(PairClassifier())
