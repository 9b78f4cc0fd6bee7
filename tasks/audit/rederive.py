"""Derives again what follows from stored files: pruned weights from plan and parent, metrics from predictions, verdicts.

Works on a view of the run: a folder in which every file of the lineage lies under its own path with its verified bytes.
What differs by task is in `classification.py` and `causal_lm.py`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.artifacts import WEIGHTS, RoundPaths
from tasks.audit.evidence import Places
from tasks.data.frames import rows_sha256
from tasks.files import file_sha256, read_json
from tasks.lineage.chain import Receipt
from tasks.lineage.checks import Finding, compare, failed, unknown, whole
from tasks.measuring.quality import Draws
from tasks.params.base import Params
from tasks.params.recorded import recorded_params
from tasks.pruning.shapes import Plan
from tasks.training.metrics import BETTER

TOLERANCE: Final = 2e-6  # reports round to six decimals, and the last bit may differ between processors
BROKEN: Final = (KeyError, ValueError, TypeError, IndexError, OSError, RuntimeError, AssertionError)


def make_view(places: Places, into: Path) -> None:
    """Make `into` hold, under its own path, every file of which verified bytes were found."""
    for path, place in places.items():
        if place is not None:
            link = into / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place.absolute())


def derived(name: str, subject: str, needs: Places, sentence: str, derive: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what `derive` finds wrong, UNKNOWN when a file it needs has no verified bytes, FAIL when it cannot be done."""
    missing = [path for path, place in needs.items() if place is None]
    if missing:
        return [unknown(name, subject, f"needs {missing[0]}, whose bytes were not found whole")]
    try:
        return whole(name, subject, derive(), sentence)
    except BROKEN as error:
        words = f"{type(error).__name__}: {error}"
        return [failed(name, subject, "files from which it follows", words, "cannot be derived")]


def follows(view: Path, folder: Path, name: str, parent: str, write: Callable[[Path, Plan, Path], None]) -> list[Finding]:
    """Return where the pruned model in `folder`, of a round, is not bit for bit what follows from its parent and its plan.

    `write` writes the model that follows from the parent's folder and the plan into a third folder.
    """
    from tasks.pruning.cut import write_tokenizer

    source, record = RoundPaths(view, parent).model, read_json(folder / "plan.json")
    weights, sentence = file_sha256(source / WEIGHTS), "the plan was made for another parent"
    findings = compare("pruning", f"{name}: plan.json: parent_sha256", weights, record["parent_sha256"], sentence)
    sentence = "does not follow from the parent and the plan"
    with tempfile.TemporaryDirectory(dir=view) as scratch:
        made, plan = Path(scratch), Plan.from_json(record["keep"])
        write(source, plan, made)
        write_tokenizer(source, plan, made)
        for path in sorted(made.iterdir()):
            stored = folder / "model" / path.name
            subject = stored.relative_to(view).as_posix()
            findings += compare("pruning", subject, _content(path), _content(stored), sentence)
    return findings


def _content(path: Path) -> str:
    """Return what identifies a file of a model; config.json also names the version of the library that wrote it."""
    if path.name == "config.json":
        return json.dumps({k: v for k, v in read_json(path).items() if k != "transformers_version"}, sort_keys=True)
    return file_sha256(path) if path.exists() else "no such file"


def best_checkpoint(view: Path, name: str) -> list[Finding]:
    """Return where the trained model is not the checkpoint that its summary calls the best."""

    paths, same = RoundPaths(view, name), partial(compare, "checkpoints")
    summary = read_json(paths.trained / "summary.json")
    weights = file_sha256(paths.weights)
    findings = same(f"{name}: model_sha256", weights, summary["model_sha256"], "the summary is of another model")
    checkpoints = {checkpoint["name"]: checkpoint for checkpoint in summary["checkpoints"]}
    for step, checkpoint in checkpoints.items():
        here = file_sha256(paths.trained / "checkpoints" / step / WEIGHTS)
        findings += same(f"{name}: {step}", checkpoint["sha256"], here, "the summary is of another checkpoint")
    if checkpoints:
        chosen = checkpoints[summary["best_checkpoint"]]
        findings += same(f"{name}: best", chosen["sha256"], weights, "the model is not its best checkpoint")
        [metric] = [metric for metric in BETTER if f"best_{metric}" in summary]
        best = min(BETTER[metric] * checkpoint[metric] for checkpoint in checkpoints.values()) * BETTER[metric]
        for value in (summary[f"best_{metric}"], chosen[metric]):
            findings += same(f"{name}: best", best, value, "is not the best one")
    return findings


def measured_sets(view: Path, name: str) -> tuple[Mapping[str, Any], list[Finding]]:
    """Return the sets of quality.json of a round or the teacher, and whether it was measured on the round's model."""
    paths = RoundPaths(view, name)
    report, weights = read_json(paths.quality), file_sha256(paths.weights)
    sentence = "measured on another model"
    return report["sets"], compare("metrics", f"{name}: model_sha256", weights, report["model_sha256"], sentence)


def draws_of(params: Mapping[str, Any]) -> Draws:
    """Return how the intervals of a run were drawn."""
    section = params["evaluate"]
    return Draws(section["bootstrap_resamples"], section["confidence"], params["seed"])


def same_rows(subject: str, prepared: Sequence[str], rows: Sequence[str], recorded: str, what: str) -> list[Finding]:
    """Return where the predicted rows (or blocks: `what`) are not those of the prepared set, or the report is of others."""
    same = partial(compare, "metrics")
    findings = same(f"{subject}: rows", list(prepared), list(rows), f"other {what} than those of the prepared set")
    return findings + same(f"{subject}: rows_sha256", rows_sha256(prepared), recorded, f"reported of other {what}")


def differences(subject: str, again: Any, stored: Any) -> list[Finding]:
    """Return the numbers in which two nested reports differ by more than rounding."""
    if isinstance(again, Mapping) and isinstance(stored, Mapping):
        parts = (differences(f"{subject}: {key}", again.get(key), stored.get(key)) for key in sorted({*again, *stored}))
        return [difference for part in parts for difference in part]
    if isinstance(again, int | float) and isinstance(stored, int | float) and abs(again - stored) <= TOLERANCE:
        return []
    return compare("metrics", subject, again, stored, "quality.json says another number than its predictions give")


def judged(view: Path, receipt: Receipt) -> list[Finding]:
    """Return where a verdict is not the one that the gate gives on the stored files with the recorded rules."""
    stage, same = receipt["stage"], partial(compare, "verdict")
    try:
        params = recorded_params(receipt["params"])
    except ValidationError as error:
        return [unknown("verdict", stage, f"the recorded params are not of this version: {error.errors()[0]['msg']}")]
    with tempfile.TemporaryDirectory(dir=view) as folder:
        outputs = rerun(receipt, params, view, Path(folder))
        again, stored = (read_json(place / outputs[0]) for place in (Path(folder), view))
    findings = same(f"{stage}: verdict", again["verdict"], stored["verdict"], "the rules give another verdict")
    rules = zip(_without_sentences(again), _without_sentences(stored), strict=True)
    for number, pair in enumerate(rules, start=1):
        findings += same(f"{stage}: rule {number}", *pair, "the gate finds something else on these files")
    return findings


def _without_sentences(verdict: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the rules of a verdict; sentences are for people and may be worded better in a later version."""
    return ({key: value for key, value in rule.items() if key != "sentence"} for rule in verdict["rules"])


def rerun(receipt: Receipt, params: Params, view: Path, out: Path) -> list[str]:
    """Run a stage again with the arguments of its receipt, on the files of a view, into `out`; return its output paths."""
    from tasks.running.stage import stage_function

    verb, *words = receipt["command"]
    run, roles = stage_function(verb)
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
    run(params, **arguments)
    return outputs
