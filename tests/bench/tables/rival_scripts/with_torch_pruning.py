"""Prunes hidden width, heads and neurons of a BERT classifier with Torch-Pruning, and saves the smaller weights."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

BATCH_ROWS = 32

place = Path(sys.argv[1])
wanted = json.loads((place / "wanted.json").read_text())
shape = wanted["shape"]
data = np.load(place / "calibration.npz")
model = AutoModelForSequenceClassification.from_pretrained(
    wanted["teacher"], dtype=torch.float32, attn_implementation="eager"
).eval()
config = model.config
rows = [slice(start, start + BATCH_ROWS) for start in range(0, len(data["ids"]), BATCH_ROWS)]
ids, mask, labels = (torch.from_numpy(data[name]) for name in ("ids", "mask", "labels"))

if wanted["criterion"] == "taylor":
    importance = tp.importance.GroupTaylorImportance()
    for part in rows:  # the gradient of the mean cross-entropy of all calibration rows
        logits = model(input_ids=ids[part], attention_mask=mask[part]).logits
        loss = torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum") / len(ids)
        loss.backward()
else:
    importance = tp.importance.GroupMagnitudeImportance(p=2)

attention = [layer.attention.self for layer in model.bert.encoder.layer]
heads = {product: config.num_attention_heads for one in attention for product in (one.query, one.key, one.value)}
narrower = 1.0 - shape["hidden"] / config.hidden_size
fewer = 1.0 - shape["ffn"] / config.intermediate_size
pruner = tp.pruner.BasePruner(
    model,
    {"input_ids": ids[:2], "attention_mask": mask[:2]},
    importance=importance,
    pruning_ratio=narrower,
    pruning_ratio_dict={layer.intermediate: fewer for layer in model.bert.encoder.layer},
    ignored_layers=[model.classifier],
    num_heads=heads,
    prune_num_heads=True,
    prune_head_dims=False,
    head_pruning_ratio=1.0 - shape["heads"] / config.num_attention_heads,
    output_transform=lambda outputs: outputs.logits.sum(),
)
pruner.step()
out = Path(wanted["out"])
out.mkdir(parents=True, exist_ok=True)
save_file({name: value.detach().contiguous() for name, value in model.state_dict().items()}, out / "model.safetensors")
