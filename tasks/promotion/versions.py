"""A registered version, read once from MLflow, so that it can be judged without asking again."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import WEIGHTS, every_set
from tasks.files import read_json
from tasks.gates.evidence import Model
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.promotion.decisions import VersionRecord, version_record
from tasks.registry.reading import Reader, own_tags

EVIDENCE: Final = ("verdict.json", "quality.json", "cost.json", "parity.json", "golden.json")


@dataclass(frozen=True)
class Evaluation:
    """What a run recorded of one model: files of evidence by their names, and the folder of its predictions."""

    evidence: Mapping[str, Path]

    def read(self, name: str) -> Any:
        """Return the content of a file of evidence, None without it."""
        return read_json(self.evidence[name]) if name in self.evidence else None

    def model(self, who: str) -> Model | None:
        """Return the evaluation as gates read it, None without a report of quality."""
        if "quality.json" not in self.evidence:
            return None
        return Model(who, every_set(self.read("quality.json")), self.evidence["quality.json"].parents[1] / "predictions")


@dataclass(frozen=True)
class Version:
    """A registered version: what decisions say of it, its files, its evaluation and its teacher's, and what its run says.

    `model` is the folder that MLflow serves, None where it is not known. `receipts` (stage -> bytes), `receipts_root` and
    `selection` are of the pipeline run; `receipts` is None where that is not recorded.
    """

    record: VersionRecord
    model: Path | None
    evaluation: Evaluation
    teacher: Evaluation
    receipts: Mapping[str, bytes] | None
    receipts_root: str | None
    selection: Mapping[str, Any] | None

    @property
    def weights(self) -> Path | None:
        """Return the file of the registered weights, None where there is none."""
        path = self.model and self.model / "artifacts" / "model" / WEIGHTS
        return path if path and path.is_file() else None


def read_evaluation(tracker: Reader, run_id: str | None, sets: Collection[str]) -> Evaluation:
    """Return what a run recorded of a model, the predictions of `sets` fetched where they are kept elsewhere."""
    if not run_id:
        return Evaluation({})
    for name in sorted(sets):
        tracker.local_file(run_id, f"predictions/{name}.parquet")
    places = {name: tracker.local_file(run_id, f"evidence/{name}") for name in EVIDENCE}
    return Evaluation({name: path for name, path in places.items() if path is not None})


def read_version(tracker: Reader, record: VersionRecord, sets: Collection[str] = ()) -> Version:
    """Return a version with all by which it is judged; `sets` are those whose predictions are wanted."""
    run = tracker.parent_of(record["run_id"]) if record["run_id"] else None
    receipts, selection = _of_run(tracker, run) if run else (None, None)
    return Version(
        record=record,
        model=tracker.local_model(record["model_id"]) if record["model_id"] else None,
        evaluation=read_evaluation(tracker, record["run_id"], sets),
        teacher=read_evaluation(tracker, record["teacher_run_id"], sets),
        receipts=receipts,
        receipts_root=tracker.run_tags(run).get(RECEIPTS_ROOT) if run else None,
        selection=selection,
    )


def _of_run(tracker: Reader, run: str) -> tuple[dict[str, bytes], Mapping[str, Any] | None]:
    """Return stage -> bytes of the receipts recorded with a pipeline run, and its selection; fetched anew."""
    with tempfile.TemporaryDirectory(prefix="compactlm-run-") as scratch:
        folder = tracker.run_files(run, "receipts", Path(scratch))
        chosen = tracker.run_files(run, "selection.json", Path(scratch))
        receipts = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.json"))} if folder else {}
        return receipts, read_json(chosen) if chosen else None


def as_registered(tracker: Reader, record: VersionRecord | None) -> VersionRecord | None:
    """Return a version of the log with the ids it has now: an index that was made again has others."""
    if record is None or tracker.has_run(record["run_id"]):
        return record
    known = [own_tags(entry.tags) for entry in tracker.versions()]
    tags = next((tags for tags in known if tags["model_sha256"] == record["model_sha256"]), {})
    return version_record(record["version"], {**tags, "model_sha256": record["model_sha256"], "round": record["round"]})
