"""Audits a registered model: walks its lineage to the data, hashes every byte again, and derives again what follows.

Reads only; whatever it must write goes into a temporary folder.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.audit import approvals as audit_approvals
from tasks.audit import bytes as audit_files
from tasks.audit import code as audit_code
from tasks.audit import decisions, rederive, registry, replay
from tasks.audit import lock as audit_lock
from tasks.audit.derive import Start, deriver
from tasks.audit.dossier import Dossier, read_dossier
from tasks.errors import ParamsError, UserError
from tasks.lineage import links as audit_chain
from tasks.lineage.chain import RECEIPTS_FOLDER, Receipts, ancestors, edges, files_of, parse, producers, rounds_of
from tasks.lineage.checks import Finding, as_json, failed, overall, unknown
from tasks.params.file import model_name
from tasks.promotion.decisions import LOG
from tasks.registry.runs import REFS, read_runs
from tasks.registry.selector import find_version
from tasks.registry.tracking import Tracker, store_exists
from tasks.running.dvc import cache_folder, read_lock
from tasks.running.start import AUDIT, only_run

Say = Callable[[str], None]


def audit(
    workspace: Path,
    selector: str | None,
    say: Say = lambda _: None,
    again: Sequence[str] = (),
    tell: Say = lambda _: None,
) -> dict[str, Any]:
    """Return the report on one version: `result`, every check, the stages with their edges, and what it took.

    `again` has patterns of stages to replay. `say` gets lines that replace each other, `tell` lines to keep.
    Raises UserError when no such version is registered.
    """
    began = time.monotonic()
    if not store_exists(workspace):
        raise UserError(f"{workspace}: no model is registered yet; `compactlm run` makes some")
    (workspace / ".compactlm").mkdir(exist_ok=True)
    # A run that goes on meanwhile would change files under our eyes.
    with (
        only_run(workspace, AUDIT),
        tempfile.TemporaryDirectory(prefix="audit-", dir=workspace / ".compactlm") as folder,
        deriver() as start,
    ):
        scratch = Path(folder)
        say("reading what MLflow says")
        tracker = Tracker(workspace, keep_runs=True)
        dossier = read_dossier(tracker, *find_version(tracker, selector, model_name(workspace)), scratch)
        recorded, broken = _recorded(dossier, workspace)
        receipts = {stage: json.loads(content) for stage, content in recorded.items()}
        checks = [*broken, *audit_chain.merkle(dossier.receipts, dossier.receipts_root)]
        last = f"gate@{dossier.round}"
        facts: dict[str, Any] = {"stages": [], "edges": [], "files": 0, "bytes": 0, "replay": None}
        if last not in receipts:
            checks.append(
                unknown("receipts", last, "no receipt tells how this model was judged; `compactlm run` records it")
            )
        else:
            stages = ancestors(receipts, last)
            walk = _Walk(tracker, dossier, receipts, recorded, stages, scratch, say, start)
            checks += walk.checks()
            checks += registry.inverse(dossier, receipts, _weights_of_versions(tracker, dossier, scratch))
            replayed: dict[str, Any] | None = None
            if again:
                wanted, tree = replay.chosen(stages, again), scratch / "replay"
                more, replayed = replay.replay(workspace, receipts, wanted, walk.places, tree, say, tell)
                checks += more
            facts = {
                "stages": _stages(receipts, stages, checks),
                "edges": edges(receipts, stages),
                **walk.counted,
                "replay": replayed,
            }
    results = [check.result for check in checks]
    return {
        "model": dossier.name,
        "version": int(dossier.version),
        "round": dossier.round,
        "aliases": sorted(alias for alias, number in dossier.aliases.items() if number == dossier.version),
        "model_sha256": dossier.tags.get("model_sha256"),
        "run_id": dossier.run_id,
        "receipts_root": dossier.receipts_root,
        "result": overall(checks),
        "counts": {one: results.count(one) for one in ("PASS", "FAIL", "UNKNOWN")},
        "checks": as_json(checks),
        **facts,
        "seconds": round(time.monotonic() - began, 2),
    }


class _Walk:
    """The checks of one lineage, in the order in which they need each other."""

    def __init__(
        self,
        tracker: Tracker,
        dossier: Dossier,
        receipts: Receipts,
        recorded: Mapping[str, bytes],
        stages: list[str],
        scratch: Path,
        say: Say,
        start: Start,
    ) -> None:
        self.tracker, self.workspace = tracker, tracker.workspace
        self.dossier, self.receipts, self.recorded = dossier, receipts, recorded
        self.stages, self.scratch, self.say, self.start = stages, scratch, say, start
        self.here = _read_receipts(self.workspace)
        self.counted = {"files": 0, "bytes": 0}

    def checks(self) -> list[Finding]:
        checks = audit_chain.links(self.receipts, self.stages)
        checks += self._bytes()
        view = self.scratch / "view"
        rederive.make_view(self.places, view)
        derived = self.start(self.receipts, self.stages, self.dossier.round, self.places, view)
        checks += self._git()
        checks += self._mlflow()
        self.say("deriving weights, metrics and verdict again")
        return checks + derived()

    def _bytes(self) -> list[Finding]:
        stages, receipts, recorded = self.stages, self.receipts, self.recorded
        try:
            self.lock = read_lock(self.workspace)
            checks: list[Finding] = []
        except ParamsError as error:
            self.lock = {}
            checks = [failed("dvc.lock", "dvc.lock", "a readable file", str(error), "it was changed by hand")]
        self.current = audit_lock.current_stages(stages, recorded, self.lock, self.here)
        checks += audit_lock.whose_receipts(stages, recorded, self.lock, self.here)
        checks += audit_lock.entries(self.current, receipts, recorded, self.lock)
        cache = cache_folder(self.workspace)
        where = audit_files.candidates(self.workspace, cache, receipts, stages)
        self.say(f"hashing {len(where)} files in the workspace and in the cache")
        digests = audit_files.hash_files(path for places in where.values() for path in places)
        self.counted = _count(digests)
        checks += audit_files.in_workspace(self.workspace, receipts, self.current, digests)
        checks += audit_files.in_cache(cache, receipts, recorded, stages, digests)
        self.places = audit_files.good_places(receipts, stages, where, digests)
        return checks + audit_files.nowhere(receipts, stages, self.places)

    def _git(self) -> list[Finding]:
        self.say("comparing code and params with Git")
        states = audit_code.snapshots(self.workspace, self.receipts, self.stages, self.scratch)
        checks = audit_code.commits(self.workspace, self.receipts, self.stages)
        checks += audit_code.code(self.receipts, self.stages, states)
        checks += audit_code.locked_code(self.receipts, self.current, states, self.lock)
        checks += audit_code.sources_lock(self.workspace, self.receipts, self.stages, states)
        if len(self.current) == len(self.stages):
            checks += audit_code.backdated(self.workspace, self.receipts, self.stages, states)
        return checks

    def _mlflow(self) -> list[Finding]:
        dossier, receipts = self.dossier, self.receipts
        checks = registry.version(dossier, receipts)
        for name in rounds_of(self.stages):
            record = dossier.rounds.get(name)
            if record is None:
                checks.append(unknown("mlflow files", name, "MLflow has no run of this round"))
                continue
            copies = {stage: copy for stage, copy in record.receipts.items() if stage in self.recorded}
            checks += audit_chain.copies_agree(self.recorded, copies, f"run {record.run_id} ({name})")
            checks += registry.stored_files(record, receipts)
            checks += registry.params(record, receipts) + registry.metrics(record)
        try:
            checks += registry.run_record(dossier, read_runs(self.workspace, dossier.name))
        except UserError as error:
            checks.append(failed("run record", REFS, "records of runs", "a broken one", str(error)))
        return checks + registry.aliases(dossier, receipts, self._chosen()) + self._decisions()

    def _decisions(self) -> list[Finding]:
        """Return whether the log is intact, and whether the decisions about this version's weights hold again."""
        dossier = self.dossier
        if not dossier.in_git:
            words = "the workspace is in no Git repository, where decisions are recorded"
            return [unknown("decision log", LOG, words)]
        known = {tags["model_sha256"]: number for number, tags in dossier.versions.items() if "model_sha256" in tags}
        checks = decisions.copies(self.workspace) + decisions.chain(dossier.log, dossier.name)
        checks += audit_approvals.approvals(self.tracker, dossier.log, self.scratch)
        checks += audit_approvals.answer_files(self.workspace, dossier.log)
        checks += decisions.without_version(dossier.log, dossier.name, known)
        for entry in dossier.log:
            if entry["candidate"]["model_sha256"] == dossier.tags.get("model_sha256"):
                checks += self._decision(entry)
        return checks

    def _decision(self, entry: dict[str, Any]) -> list[Finding]:
        """Return whether a decision holds again; evidence in MLflow that cannot be read any more is a fault, not a crash."""
        try:
            return decisions.decision(self.tracker, self.dossier.versions, entry, self.scratch)
        except rederive.BROKEN as error:
            subject, words = f"decision {entry['number']}", f"{type(error).__name__}: {error}"
            return [failed("decision evidence", subject, "evidence that can be read", words, "cannot be derived")]

    def _chosen(self) -> str | None:
        """Return the round that the selection in force has chosen, None when the workspace has gone on or has none."""
        content = self.dossier.selection
        place = self.workspace / "artifacts" / "selection.json"
        if content is None or not place.exists() or place.read_bytes() != content:
            return None
        chosen = json.loads(content)["selected"]
        stage = f"distill@{chosen}"
        return chosen if stage in self.recorded and self.here.get(stage) == self.recorded[stage] else None


def _recorded(dossier: Dossier, workspace: Path) -> tuple[dict[str, bytes], list[Finding]]:
    """Return the receipts recorded with the run, and failures for those that are no receipts any more.

    A run of an older version recorded those of its rounds alone; then the workspace's stand in for the rest.
    """
    copies = dict(dossier.receipts) or _read_receipts(workspace)
    found: dict[str, bytes] = {}
    checks = []
    for stage, content in copies.items():
        try:
            parse(stage, content)
            found[stage] = content
        except ValueError as error:
            checks.append(
                failed("receipts", f"{RECEIPTS_FOLDER}/{stage}.json", "a receipt", str(error), "cannot be read")
            )
    return found, checks


def _read_receipts(workspace: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((workspace / RECEIPTS_FOLDER).glob("*.json"))}


def _weights_of_versions(tracker: Tracker, dossier: Dossier, scratch: Path) -> dict[str, str | None]:
    """Return number -> sha256 of the weights of each version by the receipt of its own run."""
    found: dict[str, str | None] = {}
    for number, tags in dossier.versions.items():
        found[number] = None
        place = tracker.run_files(tags["run_id"], "receipts", scratch) if "run_id" in tags else None
        path = place / f"distill@{tags['round']}.json" if place else None
        if path is not None and path.exists():
            receipt = json.loads(path.read_bytes())
            weights = files_of(receipt, "outputs").get(registry.path_in(tags["round"], registry.WEIGHTS))
            found[number] = weights["sha256"] if weights else None
    return found


def _count(digests: Mapping[Path, str | None]) -> dict[str, int]:
    inodes = {(facts.st_dev, facts.st_ino): facts.st_size for facts in (p.stat() for p, sha in digests.items() if sha)}
    return {"files": len(inodes), "bytes": sum(inodes.values())}


def _stages(receipts: Receipts, stages: list[str], checks: list[Finding]) -> list[dict[str, Any]]:
    """Return the stages with the worst result of the checks about each, for people to see where it broke."""
    wrote = producers(receipts)
    worst = dict.fromkeys(stages, "PASS")
    for check in checks:
        head = check.subject.partition(":")[0]
        stage = wrote.get(check.subject) or check.subject.removeprefix(f"{RECEIPTS_FOLDER}/").removesuffix(".json")
        for one in (stage, head):
            if one in worst and (check.result == "FAIL" or (check.result == "UNKNOWN" and worst[one] == "PASS")):
                worst[one] = check.result
    return [
        {
            "name": stage,
            "result": worst[stage],
            "started_at": receipts[stage]["started_at"],
            "seconds": receipts[stage]["compute_seconds"],
            "commit": receipts[stage]["git"]["commit"],
            "outputs": {path: entry["sha256"] for path, entry in receipts[stage]["outputs"].items()},
        }
        for stage in stages
    ]
