"""The files of a run as plain values ready to be recorded; docs/artifacts.md describes the files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import SETS, TEACHER, Cost, RoundPaths, every_set, receipt_path
from tasks.files import file_sha256, read_json, read_json_lines
from tasks.training.metrics import MEASURED

DIGEST_CHARACTERS: Final = 32  # MLflow keeps at most 36 of a data set's digest
CONTEXTS: Final = {"train": "training", "transfer": "training", "calibration": "calibration"}
LONGEST_SLICE: Final = 180  # characters of a metric's 250, which also names set and statistic
RANDOM_INIT: Final = "random_init"  # before the metrics of the round's shape trained from random weights


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a training stage: its digest, where its bytes are, and what was measured at its step."""

    name: str
    step: int
    sha256: str
    path: str
    metrics: dict[str, float]


class RoundFiles(RoundPaths):
    """The files of one round and what is in them; of a former run they lie below another folder than the workspace."""

    @property
    def label(self) -> str:
        """Return the name shown to people: the teacher's evaluation is round r0."""
        return "r0" if self.name == TEACHER else self.name

    @property
    def onnx(self) -> Path | None:
        """Return the exported ONNX file; None for a language model, which has none."""
        path = self.exported / "model.onnx"
        return path if path.exists() else None

    def evidence(self) -> list[Path]:
        """Return the files of the contract that say how good the round's model is, those that exist."""
        exported = (self.exported / name for name in ("parity.json", "golden.json"))
        trained = (self.trained / "summary.json", self.plan, self.found_shape)
        return [path for path in (self.quality, self.cost, *exported, self.verdict, *trained) if path.exists()]

    def prediction_files(self) -> list[Path]:
        """Return the predictions row by row, a file a set; a later model is paired with them."""
        return sorted(self.predictions.glob("*.parquet"))

    def receipts(self) -> list[Path]:
        """Return the receipts of the round's stages, those that exist."""
        return [path for stage in self.stages if (path := self.root / receipt_path(stage)).exists()]

    @property
    def is_evaluated(self) -> bool:
        """Return whether the round's evaluation is here; of a former run it may be lost."""
        return self.quality.exists()

    def model_sha256(self) -> str:
        """Return the digest of the round's best weights, as the evaluation saw them."""
        return str(read_json(self.quality)["model_sha256"])

    def onnx_sha256(self) -> str:
        """Return the digest of the exported ONNX file; empty where there is none."""
        return file_sha256(self.onnx) if self.onnx else ""

    def costs(self) -> Cost:
        """Return what the model costs to run."""
        content: Cost = read_json(self.cost)
        return content

    def judged(self) -> str | None:
        """Return pass, fail or hold; None for the teacher, which nobody judges."""
        return str(read_json(self.verdict)["verdict"]) if self.verdict.exists() else None

    def steps(self) -> list[dict[str, Any]]:
        """Return the lines of the training curves; empty when the stage took the model as it was."""
        path = self.trained / "steps.jsonl"
        return read_json_lines(path) if path.exists() else []

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints of the training stage in order of their steps."""
        path = self.trained / "summary.json"
        entries = read_json(path)["checkpoints"] if path.exists() else []
        folder = (self.trained / "checkpoints").relative_to(self.root)
        return [
            Checkpoint(
                name=entry["name"],
                step=entry["step"],
                sha256=entry["sha256"],
                path=(folder / entry["name"]).as_posix(),
                metrics={key: float(entry[key]) for key in entry if key.startswith(MEASURED)},
            )
            for entry in sorted(entries, key=lambda entry: entry["step"])
        ]

    def metrics(self) -> dict[str, float]:
        """Return every final number of the round by name: quality by set and slice, then cost, parity, and a search's ranks."""
        numbers = flatten_quality(read_json(self.quality))
        numbers |= flatten_numbers("cost", self.costs())
        parity = self.exported / "parity.json"
        if parity.exists():
            numbers |= flatten_numbers("parity", read_json(parity))
        if self.found_shape.exists():
            numbers |= flatten_search(read_json(self.found_shape))
        return numbers

    def random_start(self) -> dict[str, float]:
        """Return the quality of this shape trained from random weights, as `metrics` names it below `random_init/`."""
        return flatten_random_start(read_json(self.random_init))


def flatten_random_start(quality: Mapping[str, Any]) -> dict[str, float]:
    """Return what `flatten_quality` returns of a random start, below `random_init/`."""
    return {f"{RANDOM_INIT}/{name}": value for name, value in flatten_quality(quality).items()}


def flatten_quality(quality: Mapping[str, Any]) -> dict[str, float]:
    """Return `test/accuracy`, its bounds `test/accuracy_low` and `_high`, and `test/class_negative/accuracy` alike."""
    numbers: dict[str, float] = {}
    for name, content in every_set(quality).items():
        for slice_name, values in content["slices"].items():
            prefix = name if slice_name == "overall" else f"{name}/{slice_key(slice_name)}"
            for metric, value in values.items():
                numbers.update(_interval(f"{prefix}/{metric}", value, bounds=slice_name == "overall"))
        for variant, values in content.get("variants", {}).items():
            for metric, value in values.items():
                numbers.update(_interval(f"{name}/{variant}/{metric}", value, bounds=False))
        numbers |= {f"{name}/{metric}": float(value) for metric, value in content.get("pieces", {}).items()}
    return numbers


def _interval(key: str, value: Any, *, bounds: bool) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {key: float(value)}
    numbers = {key: float(value["value"])}
    if bounds:
        numbers |= {f"{key}_low": float(value["low"]), f"{key}_high": float(value["high"])}
    return numbers


def flatten_numbers(prefix: str, value: Any) -> dict[str, float]:
    """Return the numbers inside nested dictionaries under names joined by `/`; other values are left out."""
    if isinstance(value, Mapping):
        below = (flatten_numbers(f"{prefix}/{tag_key(str(key))}", item) for key, item in value.items())
        return {name: number for numbers in below for name, number in numbers.items()}
    return {prefix: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def flatten_search(search: Mapping[str, Any]) -> dict[str, float]:
    """Return `search/candidate_1/rank_after`, `search/candidate_1/short/best_...` and so on of a search.json."""
    numbers: dict[str, float] = {}
    for candidate in search.get("candidates", ()):
        content = {key: value for key, value in candidate.items() if key != "candidate"}
        numbers |= flatten_numbers(f"search/candidate_{candidate['candidate']}", content)
    return numbers


def tag_key(name: str) -> str:
    """Return `name` with `@` as `/` and everything else MLflow refuses in a key, `:` too, as `_`."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name.replace("@", "/"))


def slice_key(name: str) -> str:
    """Return `class_negative` for the slice `class:negative`, and so on: one name for each slice, which MLflow takes.

    Signs that are neither letters, digits nor any of `_-. ` are written as Office Open XML writes them, `_x2F_` for `/`; of a
    name that is too long for MLflow the end is a digest.
    """
    kind, colon, rest = name.partition(":")
    rest = re.sub(r"_(?=x[0-9A-F]+_)|[^\w\-. ]", lambda sign: f"_x{ord(sign[0]):02X}_", rest)
    key = f"{kind}_{rest}" if colon else kind
    if len(key) <= LONGEST_SLICE:
        return key
    return f"{key[: LONGEST_SLICE - 17]}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def former_key(key: str) -> str:
    """Return how versions that did not keep slices apart recorded a metric that is recorded as `key` today."""
    return tag_key(re.sub(r"_x([0-9A-F]+)_", lambda sign: chr(int(sign[1], 16)), key))


def step_points(lines: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """Return (metric, value, step) of every number in lines of steps.jsonl."""
    return [
        (key, float(value), int(line["step"]))
        for line in lines
        for key, value in line.items()
        if key != "step" and isinstance(value, int | float)
    ]


@dataclass(frozen=True)
class DataSet:
    """A set of rows: its name, our digest, where it is, and what a run uses it for."""

    name: str
    digest: str
    path: str
    context: str


def read_datasets(workspace: Path) -> list[DataSet]:
    """Return the sets of rows the run uses, with digests of their bytes."""
    paths = sorted((workspace / SETS).glob("*.parquet"))
    return [
        DataSet(
            name=path.stem,
            digest=file_sha256(path)[:DIGEST_CHARACTERS],
            path=path.relative_to(workspace).as_posix(),
            context=CONTEXTS.get(path.stem, "evaluation"),
        )
        for path in paths
    ]


def overall(quality: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return metric values over whole sets: {set: {metric: value}}."""
    return {
        name: {m: v["value"] for m, v in content["slices"]["overall"].items() if isinstance(v, Mapping)}
        for name, content in quality["sets"].items()
    }


def quality_of(values: Mapping[str, float]) -> tuple[str, float]:
    """Return the one number that says how good a model is on a set, with its name: accuracy, or perplexity."""
    name = "accuracy" if "accuracy" in values else "perplexity"
    return name, values[name]


def latency(cost: Mapping[str, Any], statistic: str) -> dict[str, float]:
    """Return one latency statistic of the torch model by batch size, in milliseconds."""
    return {batch: float(values[statistic]) for batch, values in cost["latency"]["torch"].items()}
