"""Prunes heads and neurons of a BERT classifier with TextPruner, iteratively, and saves the smaller weights.

`prune_heads`, which TextPruner calls at its end, is no longer in transformers 5: it is asked to keep the shape, and its
own functions then cut what its masks drop.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from textpruner import GeneralConfig, TransformerPruner, TransformerPruningConfig
from transformers import AutoModelForSequenceClassification

ITERATIONS = 8
BATCH_ROWS = 32

place = Path(sys.argv[1])
wanted = json.loads((place / "wanted.json").read_text())
data = np.load(place / "calibration.npz")
model = AutoModelForSequenceClassification.from_pretrained(wanted["teacher"], dtype=torch.float32).eval()
batches = [
    {
        "input_ids": torch.from_numpy(data["ids"][start : start + BATCH_ROWS]),
        "attention_mask": torch.from_numpy(data["mask"][start : start + BATCH_ROWS]),
        "labels": torch.from_numpy(data["labels"][start : start + BATCH_ROWS]),
    }
    for start in range(0, len(data["ids"]), BATCH_ROWS)
]
settings = TransformerPruningConfig(
    target_ffn_size=wanted["shape"]["ffn"],
    target_num_of_heads=wanted["shape"]["heads"],
    pruning_method="iterative",
    n_iters=ITERATIONS,
)
pruner = TransformerPruner(model, settings, GeneralConfig(use_device="cpu", output_dir=str(place / "textpruner")))
pruner.prune(dataloader=batches, keep_shape=True, save_model=False)
pruner.reorder_ffn_weights(pruner.ffn_mask, keep_shape=False)
pruner.reorder_attention_heads(pruner.head_mask, keep_shape=False)
out = Path(wanted["out"])
out.mkdir(parents=True, exist_ok=True)
save_file({name: value.detach().contiguous() for name, value in model.state_dict().items()}, out / "model.safetensors")
