"""Derives again what follows from stored files: pruned weights from plan and parent, metrics from predictions, verdicts.

Works on a view of the run: a folder in which every file of the lineage lies under its own path with its verified bytes.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.files import file_sha256, read_json
from tasks.lineage.chain import Receipt
from tasks.lineage.checks import Finding, compare, failed, unknown, whole
from tasks.params.base import Params
from tasks.params.recorded import recorded_params
from tasks.training.metrics import BETTER

TOLERANCE: Final = 2e-6  # reports round to six decimals, and the last bit may differ between processors
BROKEN: Final = (KeyError, ValueError, TypeError, IndexError, OSError, RuntimeError, AssertionError)


def make_view(places: Mapping[str, Path | None], into: Path) -> None:
    """Make `into` hold, under its own path, every file of which verified bytes were found."""
    for path, place in places.items():
        if place is not None:
            link = into / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place.absolute())


def derived(
    name: str, subject: str, needs: Mapping[str, Path | None], sentence: str, derive: Callable[[], list[Finding]]
) -> list[Finding]:
    """Return what `derive` finds wrong, UNKNOWN when a file it needs has no verified bytes, FAIL when it cannot be done."""
    missing = [path for path, place in needs.items() if place is None]
    if missing:
        return [unknown(name, subject, f"needs {missing[0]}, whose bytes were not found whole")]
    try:
        return whole(name, subject, derive(), sentence)
    except BROKEN as error:
        return [
            failed(
                name, subject, "files from which it follows", f"{type(error).__name__}: {error}", "cannot be derived"
            )
        ]


def same_model(made: Path, stored: Path, subject: str) -> list[Finding]:
    """Return the files of a model folder made again that the stored one has not with the same bytes."""
    found: list[Finding] = []
    for path in sorted(made.iterdir()):
        there = stored / path.name
        if path.name == "config.json":  # it also names the version of the library that wrote it
            ours, theirs = (_config(one) for one in (path, there))
        else:
            ours, theirs = file_sha256(path), file_sha256(there) if there.exists() else "no such file"
        found += compare(
            "pruning", f"{subject}/{path.name}", ours, theirs, "does not follow from the parent and the plan"
        )
    return found


def _config(path: Path) -> str:
    content = {key: value for key, value in read_json(path).items() if key != "transformers_version"}
    return json.dumps(content, sort_keys=True)


def best_checkpoint(view: Path, name: str) -> list[Finding]:
    """Return where the trained model is not the checkpoint that its summary calls the best."""
    folder = view / f"artifacts/rounds/{name}/trained"
    summary = read_json(folder / "summary.json")
    weights = file_sha256(folder / "model" / "model.safetensors")
    found = compare(
        "checkpoints", f"{name}: model_sha256", weights, summary["model_sha256"], "the summary is of another model"
    )
    for one in summary["checkpoints"]:
        here = file_sha256(folder / "checkpoints" / one["name"] / "model.safetensors")
        found += compare(
            "checkpoints", f"{name}: {one['name']}", one["sha256"], here, "the summary is of another checkpoint"
        )
        if one["name"] == summary["best_checkpoint"]:
            found += compare(
                "checkpoints", f"{name}: best", one["sha256"], weights, "the model is not its best checkpoint"
            )
    if summary["checkpoints"]:
        [metric] = [one for one in BETTER if f"best_{one}" in summary]
        best = min(BETTER[metric] * one[metric] for one in summary["checkpoints"]) * BETTER[metric]
        [chosen] = [one[metric] for one in summary["checkpoints"] if one["name"] == summary["best_checkpoint"]]
        for told in (summary[f"best_{metric}"], chosen):
            found += compare("checkpoints", f"{name}: best", best, told, "is not the best one")
    return found


def differences(subject: str, again: Any, told: Any) -> list[Finding]:
    """Return the numbers in which two nested reports differ by more than rounding."""
    if isinstance(again, Mapping) and isinstance(told, Mapping):
        found: list[Finding] = []
        for key in sorted({*again, *told}):
            found += differences(f"{subject}: {key}", again.get(key), told.get(key))
        return found
    if isinstance(again, int | float) and isinstance(told, int | float) and abs(again - told) <= TOLERANCE:
        return []
    return compare("metrics", subject, again, told, "quality.json says another number than its predictions give")


def judged(view: Path, receipt: Receipt) -> list[Finding]:
    """Return where a verdict is not the one that the gate gives on the stored files with the recorded rules."""
    stage = receipt["stage"]
    try:
        params = recorded_params(receipt["params"])
    except ValidationError as error:
        return [unknown("verdict", stage, f"the recorded params are not of this version: {error.errors()[0]['msg']}")]
    with tempfile.TemporaryDirectory(dir=view) as folder:
        outputs = rerun(receipt, params, view, Path(folder))
        ours, theirs = (_verdict(read_json(one)) for one in (Path(folder) / outputs[0], view / outputs[0]))
    found = compare(
        "verdict", f"{stage}: verdict", ours["verdict"], theirs["verdict"], "the rules give another verdict"
    )
    for number, (one, other) in enumerate(zip(ours["rules"], theirs["rules"], strict=True), start=1):
        found += compare(
            "verdict", f"{stage}: rule {number}", one, other, "the gate finds something else on these files"
        )
    return found


def _verdict(content: dict[str, Any]) -> dict[str, Any]:
    # Sentences are for people and may be worded better in a later version.
    return {**content, "rules": [{k: v for k, v in rule.items() if k != "sentence"} for rule in content["rules"]]}


def rerun(receipt: Receipt, params: Params, view: Path, out: Path) -> list[str]:
    """Run a stage again with the arguments of its receipt, on the files of a view, into `out`; return its output paths."""
    from tasks.running.stage import run_of, stage_function

    verb, *words = receipt["command"]
    _, roles = stage_function(importlib.import_module(f"tasks.stages.{verb}"))
    arguments: dict[str, Any] = {}
    outputs = []
    for flag, value in zip(words[::2], words[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        if name in ("receipt", "params"):
            continue
        arguments[name] = value
        if roles.get(name) == "input":
            arguments[name] = view / value
        elif roles.get(name) == "output":
            arguments[name] = out / value
            arguments[name].parent.mkdir(parents=True, exist_ok=True)
            outputs.append(value)
    run_of(verb, params)(params, **arguments)
    return outputs
