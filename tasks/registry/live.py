"""Ties a run to its record: follows training stages live, records rounds when all is done, marks failures.

Live curves: a thread that reads steps.jsonl while a stage trains and records what is new. The file is what counts: a server that
is away costs the training nothing, and whatever it has missed is recorded from the same lines once it is back, at the end of the
run or by `compactlm publish`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import TEACHER, receipt_path
from tasks.errors import AwayError, RightsError, StageError, UserError, explained, outside_errors, without_passwords
from tasks.files import read_json_lines
from tasks.git import git_facts, has_git
from tasks.lineage.loaded import changed_since_import
from tasks.lineage.merkle import RECEIPTS_ROOT, receipts_root
from tasks.params.base import Params
from tasks.params.file import load_params
from tasks.registry.publish import Publication, Settle, deciding_files, inputs_digest
from tasks.registry.reading import default_uri
from tasks.registry.records import RoundFiles, step_points
from tasks.registry.runs import record_run
from tasks.registry.shared_runs import share_runs
from tasks.registry.tracking import Tracker
from tasks.running.dvc import Stage, read_state, stage_digests
from tasks.running.good_run import write_good_run
from tasks.running.servers import away
from tasks.running.start import only_run

INTERVAL_SECONDS: Final = 3.0  # between two looks at a file that grows
PAUSE_SECONDS: Final = 30.0  # until a server that was away is tried again
LEAVE_SECONDS: Final = 5.0  # that a stage which has ended waits for a request on its way
LOCK_SECONDS: Final = 60.0
LATER: Final = "nothing is lost: `compactlm publish` records it once the server takes it"

console = logging.getLogger("compactlm")  # what a person at the terminal sees; the command line listens to it


def record_receipts(tracker: Tracker, run_id: str, workspace: Path, stages: Sequence[str]) -> str:
    """Record every stage's receipt with a run, and return the one digest that stands for them all."""
    paths = [path for name in stages if (path := workspace / receipt_path(name)).exists()]
    root = receipts_root({path.stem: path.read_bytes() for path in paths})
    if paths and tracker.run_tags(run_id).get(RECEIPTS_ROOT) != root:
        tracker.log_files(run_id, paths, "receipts")
        tracker.set_tags(run_id, {RECEIPTS_ROOT: root})
    return root


class Recorder:
    """Records one pipeline run. MLflow is opened when the first training stage begins, or at the end if nothing trains.

    `settle` brings the champion in order once all is recorded.
    """

    def __init__(
        self, workspace: Path, params: Params, stages: Sequence[Stage], facts: Mapping[str, str], settle: Settle
    ) -> None:
        self.workspace, self.params, self.facts, self._settle = workspace, params, facts, settle
        self.uri = default_uri(workspace)
        self._told_away = False
        self.stages = stages
        self._code = sorted({dep for stage in stages for dep in stage.deps if dep.startswith("tasks/")})
        self._stages = [stage.name for stage in stages]
        # By what is there now, which is what the first stage will load.
        self._inputs, self._files = inputs_digest(workspace, params, self._code), deciding_files(workspace, self._code)
        rounds = [RoundFiles(workspace, name) for name in (TEACHER, *params.rounds)]
        self._training = {files.training_stage: files for files in rounds}
        self._publication: Publication | None = None
        self._lock = threading.Lock()

    def trains(self, stage: str) -> bool:
        """Return whether a stage trains a model and so writes curves."""
        return stage in self._training

    def changed(self) -> list[str]:
        """Return which of the files that decide a run, and of the code that this process has loaded, have changed since."""
        now = deciding_files(self.workspace, self._code)
        names = {path for path in {*now, *self._files} if now.get(path) != self._files.get(path)}
        try:
            same = load_params(self.workspace / "params.yaml") == self.params
        except UserError:
            same = False
        return sorted({*names, *([] if same else ["params.yaml"]), *changed_since_import()})

    @contextmanager
    def follow(self, stage: str) -> Iterator[None]:
        """Record the curves of a training stage as they grow; one that fails is recorded even before its first line."""
        files = self._training[stage]
        scratch = self.workspace / ".compactlm" / "scratch" / stage

        def record(lines: list[dict[str, Any]]) -> None:
            self._require_server()
            with self._turn():
                publication = self._open()
                run_id = publication.begin_training(files)
                publication.tracker.log_points(run_id, step_points(lines))

        try:
            with Follower(scratch / "steps.jsonl", record, self._tell_away):
                yield
        except StageError:
            with self._best_effort():
                record([])
            raise

    def finish(self, outcomes: Mapping[str, str]) -> dict[str, str]:
        """Record everything that is done; return round -> run id.

        Raises AwayError or RightsError when MLflow does not take it, with the command that records it later.
        """
        try:
            self._require_server()
            with self._turn():
                publication = self._open()
                # First the receipts: who may become champion is asked of them.
                root = record_receipts(publication.tracker, publication.parent(), self.workspace, self._stages)
                runs = publication.finish(stage_digests(self.workspace), outcomes, self._settle)
                record_run(self.workspace, self._description(publication, outcomes, root))
                self._share()
                write_good_run(self.workspace, outcomes, self.facts.get("git_commit", ""))
                return runs
        except (AwayError, RightsError) as error:
            raise type(error)(f"{error}; {LATER}") from error

    def _require_server(self) -> None:
        """Raise AwayError when a server of MLflow does not answer now: its own client would try for long."""
        if self.uri.startswith("http") and (why := away(self.uri)):
            raise AwayError(f"{without_passwords(self.uri)} {why}")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one thread record at a time; AwayError when another one's request has hung for long."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise AwayError(f"{without_passwords(self.uri)} has not answered an earlier request yet")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        """Go on after what MLflow does not take: it is an index, and the files of the run are what counts."""
        try:
            yield
        except _not_taken() as error:
            self._tell_away(error)

    def _tell_away(self, error: BaseException) -> None:
        """Say once that curves and states are not recorded now."""
        if not self._told_away:
            self._told_away = True
            words = str(error) if isinstance(error, UserError) else explained(error)
            console.warning("MLflow: %s. The run goes on; what is missing there is recorded later", words)

    def _share(self) -> None:
        """Bring the records of runs to the remote where params.yaml names one; what stands in the way is told."""
        remote = self.params.promotion.remote
        if remote is not None and has_git(self.workspace) and (trouble := share_runs(self.workspace, remote)):
            console.warning("the records of runs are in this clone alone: %s; the next run brings them there", trouble)

    def finish_unchanged(self) -> dict[str, str]:
        """Record what is not recorded yet of a run in which every stage was up to date, and say so; return round -> run id."""
        runs = self.finish(dict.fromkeys(self._stages, "skipped"))
        console.info("nothing to do: all %d stages are up to date", len(self.stages))
        return runs

    def _description(self, publication: Publication, outcomes: Mapping[str, str], root: str) -> dict[str, Any]:
        """Return what the record of this run in Git says."""
        model = self.params.registry.model_name
        lock = self.workspace / "dvc.lock"
        return {
            "model": model,
            "inputs_digest": publication.inputs,
            "params": self.params.model_dump(mode="json"),
            "dvc_lock": lock.read_text(encoding="utf-8") if lock.exists() else "",
            "stages": self._stages,
            "receipts_root": root,
            "versions": publication.tracker.numbers(model),
            "facts": dict(self.facts),
            "outcomes": dict(outcomes),
        }

    def fail(self) -> None:
        """Record what is done and end the open runs as FAILED, if MLflow takes it; a run that never trained leaves no trace."""
        if self._publication is None or not self._publication.begun:
            return
        with self._best_effort():
            self._require_server()
            with self._turn():
                self._publication.fail()

    def _open(self) -> Publication:
        if self._publication is None:
            tracker = Tracker(self.workspace, self.params.registry.model_name)
            self._publication = Publication(tracker, self.params, self._inputs, self.facts)
        return self._publication


def open_recorder(workspace: Path, params: Params, settle: Settle) -> tuple[Recorder, list[str]]:
    """Return what records a run of this workspace, and the names of the stages that are not up to date."""
    stages, waiting = read_state(workspace)
    return Recorder(workspace, params, stages, git_facts(workspace), settle), waiting


def publish(workspace: Path, settle: Settle) -> dict[str, str]:
    """Return round -> id of its run in MLflow, recorded now or before; UserError while a stage is not up to date."""
    with only_run(workspace):
        recorder, waiting = open_recorder(workspace, load_params(workspace / "params.yaml"), settle)
        if waiting:
            raise UserError(
                f"{workspace}: {len(waiting)} stages are not up to date, such as {waiting[0]}; `dvc repro` or "
                "`compactlm run` brings them there"
            )
        return recorder.finish_unchanged()


def _not_taken() -> tuple[type[BaseException], ...]:
    """Return the errors that mean that MLflow does not take something now; only what is imported can have raised one."""
    return (AwayError, RightsError, *outside_errors())


class Follower:
    """Calls `record` with the new lines of a growing file, until `stop`; for use in a `with` statement.

    A file that has not been touched since the start is left from an earlier, perhaps different, attempt: it is not read
    before the stage has taken it up again. What cannot be recorded is told to `trouble` and tried again after a pause; whoever
    leaves the `with` never waits long for it.
    """

    def __init__(
        self,
        path: Path,
        record: Callable[[list[dict[str, Any]]], None],
        trouble: Callable[[BaseException], None],
        interval: float = INTERVAL_SECONDS,
    ):
        self.path, self.record, self.trouble, self.interval = path, record, trouble, interval
        self._paused_until = 0.0
        self._before = self._stamp()
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {path.parent.name}", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LEAVE_SECONDS)  # one that hangs is left behind: the end of the run records the same lines

    def _stamp(self) -> tuple[int, int] | None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return (facts.st_mtime_ns, facts.st_ino)

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.poll()
        self.poll()

    def poll(self) -> None:
        """Record the lines that have come since the last call."""
        stamp = self._stamp()
        if stamp is None or stamp == self._before:
            return
        try:
            # Whole, not from an offset: a stage that resumes cuts the file back to its last saved step.
            lines = read_json_lines(self.path)
        except FileNotFoundError:
            return  # the stage has just finished and removed it
        new = [line for line in lines if repr(line) not in self._seen]
        if not new or time.monotonic() < self._paused_until:
            return
        try:
            self.record(new)
        except _not_taken() as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            self.trouble(error)
        else:
            self._seen.update(repr(line) for line in new)
