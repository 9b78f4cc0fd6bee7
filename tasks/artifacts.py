"""The files of a run: where each lies below the project, and the shapes of the records in them (docs/artifacts.md).

Stages get their paths from dvc.yaml as arguments; whoever reads a run afterwards (audit, registry, promotion, pages) asks here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict

from tasks.files import write_json

TEACHER: Final = "teacher"  # its evaluation is round r0
WEIGHTS: Final = "model.safetensors"
ROOT: Final = "artifacts"
ROUNDS: Final = f"{ROOT}/rounds"
RECEIPTS: Final = f"{ROOT}/receipts"
FETCHED_DATA: Final = f"{ROOT}/fetched/data"
FETCHED_TEACHER: Final = f"{ROOT}/fetched/teacher"
SETS: Final = f"{ROOT}/data/sets"
VALIDATION: Final = f"{ROOT}/validation/summary.json"
DATA_DOCS: Final = f"{ROOT}/validation/data_docs/"
BASELINES: Final = f"{ROOT}/baselines/quality.json"
SELECTION: Final = f"{ROOT}/selection.json"
REPORT: Final = f"{ROOT}/report.html"

TRIED: Final = "tried"  # folder of the short trainings below `search`, by the candidate's number
FINISHED: Final = "finished"  # folder of the full ones, by the place at which the candidate ranked

NO_LABEL: Final = -1  # in the column `label` of rows without one
SECOND: Final = "text_pair"  # the column of the second text, in sets of pairs
GROUP: Final = "group"  # the column of what rows of one first text share, in sets of pairs and in predictions on them
STRESS: Final = "stress_"  # before the name of a set of texts of another subject or style, which have no labels
AS_WRITTEN: Final = (
    "as_written"  # the `source` of rows of a changed set that are as they were; of others it is the kind of change
)

# The stages behind one evaluated round; the teacher's evaluation is round r0.
TEACHER_STAGES: Final = ("teacher", "export_teacher", "evaluate_teacher")
ROUND_STAGES: Final = ("prune@{}", "distill@{}", "export@{}", "evaluate@{}", "gate@{}")


class Interval(TypedDict):
    """A measured number with its bootstrap interval over rows or blocks."""

    value: float
    low: float
    high: float


class SetQuality(TypedDict):
    """One set of quality.json: slice -> metric -> Interval (and `support`), variant -> metric -> Interval.

    Rivals and random starts of a classifier have no variants.
    """

    rows: int
    rows_sha256: str
    slices: dict[str, dict[str, Any]]
    variants: NotRequired[dict[str, dict[str, Any]]]


class UnlabelledQuality(TypedDict):
    """One set without labels: slice -> metric -> Interval (and `support`), and what became of the pieces of its texts.

    The metrics are those of `tasks.measuring.unlabelled.unlike`.
    """

    rows: int
    rows_sha256: str
    slices: dict[str, dict[str, Any]]
    pieces: dict[str, float]


class Quality(TypedDict):
    """quality.json of a round; `unlabelled` has the sets on which it is compared with its teacher alone."""

    round: str
    model_sha256: str
    confidence: float
    sets: dict[str, SetQuality]
    unlabelled: NotRequired[dict[str, UnlabelledQuality]]


class Latency(TypedDict):
    """Student and teacher in one process, interleaved; `ratio_p50` is student / teacher.

    `tokens_per_second` is a language model's.
    """

    latency_ms_p50: float
    latency_ms_p95: float
    teacher_latency_ms_p50: float
    teacher_latency_ms_p95: float
    ratio_p50: float
    tokens_per_second: NotRequired[float]


class Cost(TypedDict, total=False):
    """cost.json of a round; latency by format and batch size. The keys of ONNX and `flops_per_example` are a classifier's."""

    round: str
    params_total: int
    params_non_embedding: int
    sparsity: dict[str, float]
    size_bytes: int
    size_bytes_onnx: int
    size_bytes_onnx_int8: int
    flops_per_example: int
    flops_per_token: int
    flops_tokens: int
    peak_memory_bytes: int
    threads: int
    latency: dict[str, dict[str, Latency]]


class Verdict(TypedDict):
    """verdict.json of a round; the keys of a rule are described in docs/gates.md."""

    round: str
    verdict: Literal["pass", "fail", "hold"]
    sentence: str
    rules: list[dict[str, Any]]


class Digest(TypedDict, total=False):
    """What a receipt says of a file, or of a folder and each of its `files`."""

    sha256: str
    md5: str
    size_bytes: int
    files: dict[str, Digest]


class GitState(TypedDict):
    """The state of the code that a stage ran with."""

    commit: str | None
    dirty: bool
    diff_sha256: str | None
    diff: str | None


class RoundPaths:
    """Where the files of one round are, below `root` (a workspace, or a folder that stands for one)."""

    def __init__(self, root: Path, name: str) -> None:
        """Take the round's name, or `teacher`."""
        is_teacher = name == TEACHER
        self.root: Final = root
        self.name: Final = name
        self.stages: Final = TEACHER_STAGES if is_teacher else tuple(stage.format(name) for stage in ROUND_STAGES)
        self.training_stage: Final = TEACHER if is_teacher else f"distill@{name}"  # the one that trains its model
        self.folder: Final = root / ROUNDS / name
        self.tokens: Final = self.folder / "tokens"  # the sets in the tokens of the round's model
        self.pruned: Final = self.folder / "pruned"  # model/, plan.json, scores, masks, candidates
        self.plan: Final = self.pruned / "plan.json"  # what was kept
        self.search: Final = self.folder / "search"  # the trainings of candidates
        self.trained: Final = self.folder / "trained"  # model/, checkpoints/, steps.jsonl, summary.json
        self.model: Final = self.trained / "model"  # a plain Hugging Face folder
        self.weights: Final = self.model / WEIGHTS
        self.found_shape: Final = self.trained / "search.json"  # how the candidates of a search ranked
        self.exported: Final = self.folder / "exported"  # ONNX files, parity.json, golden.json
        self.evaluated: Final = self.folder / "evaluated"  # quality.json, cost.json, predictions
        self.quality: Final = self.evaluated / "quality.json"  # of type Quality
        self.cost: Final = self.evaluated / "cost.json"  # of type Cost
        self.predictions: Final = self.evaluated / "predictions"  # row by row, a file a set
        self.random_init: Final = self.folder / "random_init/quality.json"  # this shape from random weights, if asked for
        self.verdict: Final = self.folder / "verdict.json"  # of type Verdict


def receipt_path(stage: str) -> str:
    """Return the path of a stage's receipt below the project."""
    return f"{RECEIPTS}/{stage}.json"


def write_planned(path: Path, candidates: int = 0, keep: int = 0) -> None:
    """Write planned.json, so that the folder `search` is there for `distill` to read, a search or not.

    What an earlier search with more candidates has left beside it goes: it would pass for something that was read.
    """
    drop_leftovers(path.parent, candidates, keep)
    write_json(path, {"candidates": candidates, "keep": keep})


def drop_leftovers(search: Path, candidates: int, keep: int) -> None:
    """Remove the trainings below `search` that are beyond this number of candidates, and of kept ones."""
    for kind, count in ((TRIED, candidates), (FINISHED, keep)):
        allowed = {str(number) for number in range(1, count + 1)}
        for folder in (search / kind).glob("*"):
            if folder.name not in allowed:
                shutil.rmtree(folder)


def changed_name(of: str) -> str:
    """Return the name of the set that holds a set's rows and their changed copies."""
    return f"changed_{of}"


def original_of(row: str) -> str:
    """Return the row_id of the row of which a row of a changed set is a copy, its own where it is none."""
    return row.partition(":")[0]


def every_set(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sets of quality.json, those with labels and those without."""
    return {**quality["sets"], **quality.get("unlabelled", {})}
