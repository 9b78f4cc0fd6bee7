"""Fine-tunes the teacher on the labelled training set, or takes it as it is (`teacher.epochs: 0`).

deps: fetched/teacher, data | params: seed, data.labels, teacher | outs: rounds/teacher/trained
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import collate, load_tokens, shuffled_buckets
from tasks.errors import SourceError
from tasks.files import digest, file_sha256, write_json
from tasks.models.architectures import freeze, leave_out_unread
from tasks.models.checkpoint import attend_plainly, load_classifier, pad_id, read_config, save_classifier
from tasks.models.devices import Device, pick_for_training
from tasks.params.classification import ClassificationParams
from tasks.progress import Progress
from tasks.running.preflight import check_shapes
from tasks.running.stage import InPath, OutPath
from tasks.training.keeper import Keeper
from tasks.training.loop import Rows, Schedule, train
from tasks.training.scratch import Scratch, scratch_key


def run(params: ClassificationParams, *, base: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return the summary of the training, with the device it ran on."""
    check_shapes(params, read_config(base))  # a round that cannot work is cheaper to hear of before the training
    device = pick_for_training(params.runtime)
    labels = read_sets(sets, ["train", "validation"])
    targets = torch.tensor(labels["train"]["label"].to_numpy(), dtype=torch.int64, device=device.device)
    torch.manual_seed(params.seed)  # the classification head is drawn from it
    model = load_classifier(base, len(params.data.labels), params.data.labels)
    attend_plainly(model, device.device)
    if device.processes.shares is None:  # what it changes does not outlive a copy
        leave_out_unread(model, device.device)
    if params.teacher.frozen_layers is not None:
        freeze(model, params.teacher.frozen_layers)
    if params.teacher.epochs == 0:
        return _take_as_is(params, base, model, out, device)

    train_tokens = load_tokens(tokens / "train")
    batches = _batches(params, train_tokens.lengths)
    key = scratch_key(
        {
            "inputs": [digest(p)["sha256"] for p in (base, sets, tokens)],
            "seed": params.seed,
            "teacher": params.teacher.model_dump(),
            "device": device.facts(),
            "torch": torch.__version__,
        }
    )
    with device.processes.in_turn():
        scratch = Scratch("teacher", key)
    keeper = Keeper(
        scratch, load_tokens(tokens / "validation"), labels["validation"]["label"].to_numpy(dtype=np.int64), 64, device
    )
    progress = Progress("teacher", len(batches))

    def batch_loss(model: Any, rows: Rows) -> torch.Tensor:
        ids_BT, mask_BT = (torch.from_numpy(a).to(device.device) for a in collate(train_tokens, rows, pad_id(model)))
        logits_BC = model(input_ids=ids_BT, attention_mask=mask_BT).logits
        return torch.nn.functional.cross_entropy(
            logits_BC.float(), targets[torch.from_numpy(rows)], label_smoothing=params.teacher.label_smoothing
        )

    train(
        model,
        batches,
        batch_loss,
        keeper.checkpoint,
        _schedule(params),
        device,
        scratch,
        lambda step, loss: progress.update(step, loss=loss),
    )
    num_tokens = int(sum(train_tokens.lengths[rows].sum() for rows in batches))
    summary = keeper.finish(model, base, out, num_tokens)
    scratch.remove()
    return {**summary, **device.facts()}


def _batches(params: ClassificationParams, lengths: Rows) -> list[Rows]:
    rng = np.random.default_rng(params.seed)
    return [
        rows for _ in range(params.teacher.epochs) for rows in shuffled_buckets(lengths, params.teacher.batch_rows, rng)
    ]


def _schedule(params: ClassificationParams) -> Schedule:
    section = params.teacher
    return Schedule(
        learning_rate=section.learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        max_gradient_norm=section.max_gradient_norm,
        checkpoints=section.checkpoints,
        seed=params.seed,
    )


def _take_as_is(params: ClassificationParams, base: InPath, model: Any, out: OutPath, device: Device) -> dict[str, Any]:
    """Write the teacher as it came; SourceError when it has no classification head of its own."""
    config = read_config(base)
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise SourceError(
            f"params.yaml: teacher.epochs: 0 takes {params.teacher.model} as it is, but it has no classification head "
            f"(architectures: {architectures}); set teacher.epochs to 1 or more to fine-tune it"
        )
    device.processes.end_others()
    save_classifier(model, base, out / "model")
    (out / "steps.jsonl").write_text("", encoding="utf-8")
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {
        "steps": 0,
        "tokens": 0,
        "best_checkpoint": None,
        "best_validation_accuracy": None,
        "checkpoints": [],
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
    }
    write_json(out / "summary.json", summary)
    return {**summary, **device.facts()}
