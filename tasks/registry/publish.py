"""Records a run in MLflow from the files of docs/artifacts.md: one parent run, one child run a round, models and versions.

Everything is keyed by digests, and a round's digest is written last. So a round that was recorded whole is left alone, one that
was cut short is gone over again without doubling anything, and the whole index can be made anew from Git and DVC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import BASELINES, REPORT, SELECTION, TEACHER, VALIDATION
from tasks.files import digest, read_json
from tasks.params.base import Params
from tasks.params.classification import ClassificationParams
from tasks.params.edit import flatten_params
from tasks.registry.reading import Point
from tasks.registry.records import RANDOM_INIT, RoundFiles, flatten_quality, read_datasets, step_points, tag_key
from tasks.registry.selector import CHALLENGER
from tasks.registry.tracking import Served, Tracker

RUN_FILES: Final = (SELECTION, REPORT, BASELINES, VALIDATION)
COSTS: Final = ("params_total", "params_non_embedding", "size_bytes")  # tags of a version
Settle = Callable[[Tracker, Params, str, str], None]  # brings all aliases in order: version and round that were selected


def inputs_digest(workspace: Path, params: Params, code: list[str]) -> str:
    """Return the digest of all that decides a run: params, sources.lock, dvc.yaml and the code its stages depend on."""
    names = [name for name in sorted({"sources.lock", "dvc.yaml", *code}) if (workspace / name).exists()]
    files = {name: digest(workspace / name)["sha256"] for name in names}
    return _sha256({"params": params.model_dump(mode="json"), "files": files})


def deciding_files(workspace: Path, code: list[str]) -> dict[str, str]:
    """Return path -> sha256 of each single file among those, params.yaml left out."""
    found: dict[str, str] = {}
    for name in ("sources.lock", "dvc.yaml", *code):
        entry = digest(workspace / name) if (workspace / name).exists() else {"files": {}}
        files = entry.get("files", {"": entry})
        found |= {f"{name}/{below}" if below else name: one["sha256"] for below, one in files.items()}
    return found


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass
class Publication:
    """One pipeline run in MLflow. The parent run is made on first need, so bad input leaves no trace.

    A run of former times has its files below another `root`, and its versions had `numbers`: sha256 of weights -> number.
    """

    tracker: Tracker
    params: Params
    inputs: str
    facts: Mapping[str, str]
    root: Path | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    _parent: str | None = None
    _children: dict[str, str] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Return whether this object has touched its parent run."""
        return self._parent is not None

    @property
    def _folder(self) -> Path:
        return self.root or self.tracker.workspace

    @property
    def _reads_pairs(self) -> bool:
        return isinstance(self.params, ClassificationParams) and self.params.data.columns.text_pair is not None

    def parent(self) -> str:
        """Return the id of the parent run of these inputs, going on with an earlier one when there is one."""
        if self._parent is None:
            key = {"kind": "pipeline", "inputs_digest": self.inputs}
            known = self.tracker.find_run(key)
            self._parent = known or self.tracker.create_run(f"compress {self.inputs[:8]}", {**key, **self.facts})
            params = flatten_params("", self.params.model_dump(mode="json"))
            self.tracker.log_params(self._parent, {tag_key(key): value for key, value in params.items()})
        return self._parent

    def begin_training(self, files: RoundFiles) -> str:
        """Return the id of the round's run, under way, for a training stage that is about to start."""
        self.tracker.set_status(self.parent(), "RUNNING")
        child = self._unfinished_child(files)
        self.tracker.set_status(child, "RUNNING")
        return child

    def _unfinished_child(self, files: RoundFiles) -> str:
        if files.name not in self._children:
            key = {"kind": "round", "round": files.label, "parent_inputs": self.inputs}
            known = self.tracker.find_run(key, without="round_digest")
            self._children[files.name] = known or self.tracker.create_run(files.label, key, self.parent())
        return self._children[files.name]

    def fail(self) -> None:
        """End the runs that are under way as FAILED; the next run with the same inputs goes on with them."""
        if self._parent is not None:
            for run_id in [*self._children.values(), self._parent]:
                if "round_digest" not in self.tracker.run_tags(run_id):
                    self.tracker.set_status(run_id, "FAILED")

    def publish_rounds(self, digests: Mapping[str, str]) -> dict[str, str]:
        """Record every round whose stages are all done (`digests`: stage -> digest); return round -> run id."""
        runs: dict[str, str] = {}
        models: dict[str, str] = {}
        for name in (TEACHER, *self.params.rounds):
            files = RoundFiles(self._folder, name)
            if any(stage not in digests for stage in files.stages) or not files.evidence():
                continue
            random_start = self._random_start(files, digests)
            stages = (*files.stages, *random_start)
            lineage = {"teacher_run_id": runs.get(TEACHER, ""), "teacher_model_id": models.get(TEACHER, "")}
            if name != TEACHER:
                parent_round = self.params.rounds[name].parent
                lineage |= {"parent": parent_round, "parent_model_id": models.get(parent_round, "")}
            round_digest = _sha256({stage: digests[stage] for stage in stages})
            known = self.tracker.find_run({"kind": "round", "round_digest": round_digest})
            runs[name] = known or self._unfinished_child(files)
            models[name] = self._best_model(files, runs[name], lineage)
            if known is None:
                self._record_round(files, runs[name], models[name])
                if random_start:
                    self._record_random_start(files, runs[name])
                self.tracker.set_status(runs[name], "FINISHED")
                self.tracker.set_tags(runs[name], {**lineage, "round_digest": round_digest, "model_id": models[name]})
            if name != TEACHER:
                self._version(files, runs[name], models[name], lineage)
        return runs

    def _random_start(self, files: RoundFiles, digests: Mapping[str, str]) -> tuple[str, ...]:
        """Return the stage that trained this round's shape from random weights; none unless it was asked for and is done."""
        stage = f"{RANDOM_INIT}@{files.name}"
        done = files.name in self.params.baselines.random_init and stage in digests and files.random_init.exists()
        return (stage,) if done else ()

    def finish(self, digests: Mapping[str, str], outcomes: Mapping[str, str], settle: Settle | None = None) -> dict[str, str]:
        """Record the rounds and the run as a whole; return round -> run id. Nothing changes when all is there already.

        `settle` brings the aliases in order, as after a run of today; without it `challenger` alone is set.
        """
        runs = self.publish_rounds(digests)
        parent = self.parent()
        known = self.tracker.run_tags(parent)
        tags = {f"round/{name}": run_id for name, run_id in runs.items()}
        for stage, outcome in outcomes.items():
            key = f"stage/{tag_key(stage)}"
            # A later run that skips a stage does not hide that this run once executed it.
            if outcome != "skipped" or key not in known:
                tags[key] = outcome
        content = _sha256(dict(digests))
        if known.get("content_digest") != content:
            self.tracker.log_datasets(parent, read_datasets(self._folder))
            self.tracker.log_points(parent, self._rival_points())
            self.tracker.log_files(parent, [path for name in RUN_FILES if (path := self._folder / name).exists()])
            tags["content_digest"] = content
        if {**known, **tags} != known:
            self.tracker.set_tags(parent, tags)
        self._set_aliases(settle)
        self.tracker.set_status(parent, "FINISHED")
        return runs

    def _rival_points(self) -> list[Point]:
        path = self._folder / BASELINES
        rivals = read_json(path)["rivals"] if path.exists() else {}
        numbers = {name: flatten_quality(quality) for name, quality in rivals.items()}
        return [(f"{name}/{key}", value, 0) for name, values in numbers.items() for key, value in values.items()]

    def _record_round(self, files: RoundFiles, run_id: str, model_id: str) -> None:
        values = self.params.model_dump(mode="json")
        sections = [TEACHER] if files.name == TEACHER else ["prune", "distill", "rounds"]
        chosen = {s: values[s][files.name] if s == "rounds" else values[s] for s in sections}
        self.tracker.log_params(run_id, {"seed": str(self.params.seed), **flatten_params("", chosen)})
        self.tracker.log_datasets(run_id, read_datasets(self._folder))
        points: list[tuple[str | None, Point]] = []
        for checkpoint in files.checkpoints():
            name, key = f"{files.label}-{checkpoint.name}", {"checkpoint": f"{files.label}/{checkpoint.name}"}
            tags = {"path": checkpoint.path, "round": files.label, "best_model_id": model_id}
            pointer = self.tracker.ensure_pointer(name, run_id, {**key, "sha256": checkpoint.sha256}, tags)
            points += [(pointer, (f"checkpoint/{name}", value, checkpoint.step)) for name, value in checkpoint.metrics.items()]
        self.tracker.log_points_of_models(run_id, points)
        self.tracker.log_points(run_id, step_points(files.steps()))
        self.tracker.log_points(run_id, [(key, value, 0) for key, value in files.metrics().items()], model_id)
        self.tracker.log_files(run_id, files.evidence(), "evidence")
        self.tracker.log_files(run_id, files.prediction_files(), "predictions")
        self.tracker.log_files(run_id, files.receipts(), "receipts")

    def _record_random_start(self, files: RoundFiles, run_id: str) -> None:
        self.tracker.log_points(run_id, [(key, value, 0) for key, value in files.random_start().items()])
        self.tracker.log_files(run_id, [files.random_init], RANDOM_INIT)

    def _best_model(self, files: RoundFiles, run_id: str, lineage: Mapping[str, str]) -> str:
        key = {"model_sha256": files.model_sha256(), "best_of": files.label}
        tags = {"round": files.label, "path": files.model.relative_to(self._folder).as_posix()}
        tags |= {k: v for k, v in lineage.items() if k != "teacher_run_id"}
        return self.tracker.ensure_model(files.label, run_id, key, tags, Served(files.model, files.onnx, self._reads_pairs))

    def _version(self, files: RoundFiles, run_id: str, model_id: str, lineage: Mapping[str, str]) -> None:
        tags = {"round": files.label, "model_sha256": files.model_sha256(), "onnx_sha256": files.onnx_sha256()}
        tags |= {"verdict": files.judged() or "", "run_id": run_id, "model_id": model_id, **lineage}
        costs = dict(files.costs())
        tags |= {key: str(costs[key]) for key in COSTS}
        number = self.numbers.get(tags["model_sha256"])
        self.tracker.ensure_version(self.params.registry.model_name, model_id, run_id, tags, number)

    def _set_aliases(self, settle: Settle | None) -> None:
        """Point `challenger` at the selected round, or leave that and the champion to `settle`."""
        path = self._folder / SELECTION
        selected = read_json(path)["selected"] if path.exists() else None
        name = self.params.registry.model_name
        files = RoundFiles(self._folder, str(selected))
        if selected is None or not files.is_evaluated:
            return
        number = self.tracker.numbers(name).get(files.model_sha256())
        if number is None:
            return  # of a former run whose files are gone
        if settle is None:
            self.tracker.set_alias(name, CHALLENGER, number)
        else:
            settle(self.tracker, self.params, number, selected)
