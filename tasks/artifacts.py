"""The files of a run: where each lies below the project, and the shapes of the records in them (docs/artifacts.md).

Stages get their paths from dvc.yaml as arguments; whoever reads a run afterwards (audit, registry, promotion, pages) asks here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

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

MEASURED: Final = ("validation_", "learnt_")  # how the numbers of a checkpoint in summary.json begin
TRIED: Final = "tried"  # folder of the short trainings below `search`, by the candidate's number
FINISHED: Final = "finished"  # folder of the full ones, by the place at which the candidate ranked

# The stages behind one evaluated round; the teacher's evaluation is round r0.
TEACHER_STAGES: Final = ("teacher", "export_teacher", "evaluate_teacher")
ROUND_STAGES: Final = ("prune@{}", "distill@{}", "export@{}", "evaluate@{}", "gate@{}")


class Interval(TypedDict):
    """A measured number with its bootstrap interval over rows or blocks."""

    value: float
    low: float
    high: float


class SetQuality(TypedDict):
    """One set of quality.json: slice -> metric -> Interval (and `support`), variant -> metric -> Interval."""

    rows: int
    rows_sha256: str
    slices: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]


class Quality(TypedDict):
    """quality.json of a round."""

    round: str
    model_sha256: str
    confidence: float
    sets: dict[str, SetQuality]


class Latency(TypedDict):
    """Student and teacher in one process, interleaved; `ratio_p50` is student / teacher."""

    latency_ms_p50: float
    latency_ms_p95: float
    teacher_latency_ms_p50: float
    teacher_latency_ms_p95: float
    ratio_p50: float


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


@dataclass(frozen=True)
class RoundPaths:
    """Where the files of one round are, below `root` (a workspace, or a folder that stands for one)."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Return the folder of the round."""
        return self.root / ROUNDS / self.name

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages that make this round."""
        return TEACHER_STAGES if self.name == TEACHER else tuple(stage.format(self.name) for stage in ROUND_STAGES)

    @property
    def training_stage(self) -> str:
        """Return the stage that trains this round's model."""
        return TEACHER if self.name == TEACHER else f"distill@{self.name}"

    @property
    def tokens(self) -> Path:
        """Return the folder of the sets in the tokens of the round's model."""
        return self.folder / "tokens"

    @property
    def pruned(self) -> Path:
        """Return the folder of the pruning: `model/`, `plan.json`, scores, masks, candidates."""
        return self.folder / "pruned"

    @property
    def plan(self) -> Path:
        """Return what was kept, as a file."""
        return self.pruned / "plan.json"

    @property
    def search(self) -> Path:
        """Return the folder of the trainings of candidates."""
        return self.folder / "search"

    @property
    def trained(self) -> Path:
        """Return the folder of the training stage: `model/`, `checkpoints/`, `steps.jsonl`, `summary.json`."""
        return self.folder / "trained"

    @property
    def model(self) -> Path:
        """Return the folder of the round's model, a plain Hugging Face folder."""
        return self.trained / "model"

    @property
    def weights(self) -> Path:
        """Return the file of the round's weights."""
        return self.model / WEIGHTS

    @property
    def found_shape(self) -> Path:
        """Return how the candidates of a search ranked, as a file."""
        return self.trained / "search.json"

    @property
    def exported(self) -> Path:
        """Return the folder of the exports: ONNX files, parity.json, golden.json."""
        return self.folder / "exported"

    @property
    def evaluated(self) -> Path:
        """Return the folder of the evaluation: quality.json, cost.json, predictions."""
        return self.folder / "evaluated"

    @property
    def quality(self) -> Path:
        """Return the file of type Quality."""
        return self.evaluated / "quality.json"

    @property
    def cost(self) -> Path:
        """Return the file of type Cost."""
        return self.evaluated / "cost.json"

    @property
    def predictions(self) -> Path:
        """Return the folder of the predictions row by row, a file a set."""
        return self.evaluated / "predictions"

    @property
    def verdict(self) -> Path:
        """Return the file of type Verdict."""
        return self.folder / "verdict.json"

    @property
    def random_init(self) -> Path:
        """Return the file of type Quality of this shape trained from random weights; there if params ask for it."""
        return self.folder / "random_init" / "quality.json"


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
