"""The files of a run as plain values ready to be recorded; docs/artifacts.md describes the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.files import file_sha256, read_json, read_json_lines
from tasks.training.metrics import MEASURED

TEACHER: Final = "teacher"
# The stages behind one evaluated round; the teacher's evaluation is round r0.
TEACHER_STAGES: Final = ("teacher", "export_teacher", "evaluate_teacher")
ROUND_STAGES: Final = ("prune@{}", "distill@{}", "export@{}", "evaluate@{}", "gate@{}")
DIGEST_CHARACTERS: Final = 32  # MLflow keeps at most 36 of a data set's digest
CONTEXTS: Final = {"train": "training", "transfer": "training", "calibration": "calibration"}
FORMATS: Final = ("torch", "onnx", "onnx_int8")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a training stage: its digest, where its bytes are, and what was measured at its step."""

    name: str
    step: int
    sha256: str
    path: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class RoundFiles:
    """Where the files of one round are; `name` is `teacher` for round r0."""

    workspace: Path
    name: str

    @property
    def label(self) -> str:
        """Return the name shown to people: the teacher's evaluation is round r0."""
        return "r0" if self.name == TEACHER else self.name

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages that make this round."""
        return TEACHER_STAGES if self.name == TEACHER else tuple(s.format(self.name) for s in ROUND_STAGES)

    @property
    def training_stage(self) -> str:
        """Return the stage that trains this round's model."""
        return TEACHER if self.name == TEACHER else f"distill@{self.name}"

    @property
    def folder(self) -> Path:
        """Return the folder of the round's export, evaluation and verdict."""
        return self.workspace / "artifacts" / "rounds" / self.name

    @property
    def trained(self) -> Path:
        """Return the folder of the training stage: `model/`, `checkpoints/`, `steps.jsonl`, `summary.json`."""
        return self.folder / "trained"

    @property
    def onnx(self) -> Path | None:
        """Return the exported ONNX file; None for a language model, which has none."""
        path = self.folder / "exported" / "model.onnx"
        return path if path.exists() else None

    def evidence(self) -> list[Path]:
        """Return the files of the contract that say how good the round's model is, those that exist."""
        found = [self.folder / "evaluated" / "quality.json", self.folder / "evaluated" / "cost.json"]
        found += [self.folder / "exported" / "parity.json", self.folder / "exported" / "golden.json"]
        found += [self.folder / "verdict.json"]
        found += [self.trained / "summary.json", self.folder / "pruned" / "plan.json", self.trained / "search.json"]
        return [path for path in found if path.exists()]

    def predictions(self) -> list[Path]:
        """Return the predictions row by row, a file a set; a later model is paired with them."""
        return sorted((self.folder / "evaluated" / "predictions").glob("*.parquet"))

    def receipts(self) -> list[Path]:
        """Return the receipts of the round's stages, those that exist."""
        paths = [self.workspace / "artifacts" / "receipts" / f"{stage}.json" for stage in self.stages]
        return [path for path in paths if path.exists()]

    @property
    def is_evaluated(self) -> bool:
        """Return whether the round's evaluation is here; of a former run it may be lost."""
        return (self.folder / "evaluated" / "quality.json").exists()

    def model_sha256(self) -> str:
        """Return the digest of the round's best weights, as the evaluation saw them."""
        return str(read_json(self.folder / "evaluated" / "quality.json")["model_sha256"])

    def onnx_sha256(self) -> str:
        """Return the digest of the exported ONNX file; empty where there is none."""
        return file_sha256(self.onnx) if self.onnx else ""

    def cost(self) -> dict[str, Any]:
        """Return what the model costs to run (cost.json)."""
        content: dict[str, Any] = read_json(self.folder / "evaluated" / "cost.json")
        return content

    def verdict(self) -> str | None:
        """Return pass, fail or hold; None for the teacher, which nobody judges."""
        path = self.folder / "verdict.json"
        return str(read_json(path)["verdict"]) if path.exists() else None

    def steps(self) -> list[dict[str, Any]]:
        """Return the lines of the training curves; empty when the stage took the model as it was."""
        path = self.trained / "steps.jsonl"
        return read_json_lines(path) if path.exists() else []

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints of the training stage in order of their steps."""
        path = self.trained / "summary.json"
        entries = read_json(path)["checkpoints"] if path.exists() else []
        folder = (self.trained / "checkpoints").relative_to(self.workspace)
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
        """Return every final number of the round by name: quality by set and slice, then cost and parity."""
        found = flatten_quality(read_json(self.folder / "evaluated" / "quality.json"))
        found.update(flatten_numbers("cost", self.cost()))
        parity = self.folder / "exported" / "parity.json"
        if parity.exists():
            found.update(flatten_numbers("parity", read_json(parity)))
        search = self.trained / "search.json"
        if search.exists():
            found.update(flatten_search(read_json(search)))
        return found


def flatten_quality(quality: Mapping[str, Any]) -> dict[str, float]:
    """Return `test/accuracy`, its bounds `test/accuracy_low` and `_high`, and `test/class_negative/accuracy` alike."""
    found: dict[str, float] = {}
    for name, content in quality["sets"].items():
        for slice_name, values in content["slices"].items():
            prefix = name if slice_name == "overall" else f"{name}/{tag_key(slice_name)}"
            for metric, value in values.items():
                found.update(_interval(f"{prefix}/{metric}", value, bounds=slice_name == "overall"))
        for variant, values in content.get("variants", {}).items():
            for metric, value in values.items():
                found.update(_interval(f"{name}/{variant}/{metric}", value, bounds=False))
    return found


def _interval(key: str, value: Any, *, bounds: bool) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {key: float(value)}
    found = {key: float(value["value"])}
    if bounds:
        found.update({f"{key}_low": float(value["low"]), f"{key}_high": float(value["high"])})
    return found


def flatten_numbers(prefix: str, value: Any) -> dict[str, float]:
    """Return the numbers inside nested dictionaries under names joined by `/`; other values are left out."""
    if isinstance(value, Mapping):
        found: dict[str, float] = {}
        for key, item in value.items():
            found.update(flatten_numbers(f"{prefix}/{tag_key(str(key))}", item))
        return found
    return {prefix: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def flatten_search(search: Mapping[str, Any]) -> dict[str, float]:
    """Return `search/candidate_1/rank_after`, `search/candidate_1/short/best_...` and so on of a search.json."""
    found: dict[str, float] = {}
    for one in search.get("candidates", ()):
        numbers = {key: value for key, value in one.items() if key != "candidate"}
        found.update(flatten_numbers(f"search/candidate_{one['candidate']}", numbers))
    return found


def tag_key(name: str) -> str:
    """Return `name` with `@` as `/` and everything else MLflow refuses in a key, `:` too, as `_`."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name.replace("@", "/"))


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
    paths = sorted((workspace / "artifacts" / "data" / "sets").glob("*.parquet"))
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
