"""Audits a registered model: walks its lineage to the data, hashes every byte again, and derives again what follows.

Reads only; whatever it must write goes into a temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.artifacts import RECEIPTS, SELECTION, receipt_path
from tasks.audit import approvals, code, decisions, lock, registry, replay
from tasks.audit import bytes as outputs
from tasks.audit.derive import Start, deriver
from tasks.audit.dossier import Dossier, find_dossier, require_store
from tasks.audit.evidence import Evidence, read_evidence, receipts_here
from tasks.audit.rederive import BROKEN, make_view
from tasks.errors import UserError
from tasks.files import parse_object
from tasks.lineage.chain import edges, parse, producers, rounds_of
from tasks.lineage.checks import EXIT_CODES, Finding, as_json, failed, overall, unknown
from tasks.lineage.links import copies_agree, links, merkle
from tasks.promotion.decisions import LOG
from tasks.registry.dropped import dropped_versions, read_dropped
from tasks.registry.runs import REFS, read_runs
from tasks.registry.tracking import Tracker
from tasks.running.start import AUDIT, only_run

Say = Callable[[str], None]


def audit(
    workspace: Path, selector: str | None, say: Say = lambda _: None, again: Sequence[str] = (), tell: Say = lambda _: None
) -> dict[str, Any]:
    """Return the report on one version: `result`, every check, the stages with their edges, and what it took.

    `again` has patterns of stages to replay. `say` gets lines that replace each other, `tell` lines to keep.
    Raises UserError when no such version is registered.
    """
    began = time.monotonic()
    require_store(workspace)
    # Beside the project's files, which may be large; where that cannot be written, wherever temporary files go.
    beside = workspace / ".compactlm"
    place = beside if os.access(beside, os.W_OK) else None
    # A run that goes on meanwhile would change files under our eyes.
    with only_run(workspace, AUDIT), tempfile.TemporaryDirectory(prefix="audit-", dir=place) as folder, deriver() as start:
        scratch = Path(folder)
        say("reading what MLflow says")
        tracker = Tracker(workspace, keep_runs=True)
        dossier = find_dossier(tracker, selector, scratch)
        recorded, checks = _recorded(dossier, workspace)
        checks += merkle(dossier.receipts, dossier.receipts_root)
        last = f"gate@{dossier.round}"
        facts: dict[str, Any] = {"stages": [], "edges": [], "files": 0, "bytes": 0, "replay": None}
        if last in recorded:
            locked, broken = lock.read(workspace)
            evidence = read_evidence(workspace, recorded, last, locked, say)
            checks += broken + _walk(tracker, dossier, evidence, start, scratch, say)
            if again:
                chosen = replay.chosen(evidence.stages, again)
                replayed, facts["replay"] = replay.replay(evidence, chosen, scratch / "replay", say, tell)
                checks += replayed
            facts |= {**_graph(evidence, checks), **evidence.count()}
        else:
            sentence = "no receipt tells how this model was judged; `compactlm run` records it"
            checks.append(unknown("receipts", last, sentence))
    results = [check.result for check in checks]
    return {
        **dossier.title(),
        "run_id": dossier.run_id,
        "receipts_root": dossier.receipts_root,
        "result": overall(checks),
        "counts": {result: results.count(result) for result in EXIT_CODES},
        "checks": as_json(checks),
        **facts,
        "seconds": round(time.monotonic() - began, 2),
    }


def _recorded(dossier: Dossier, workspace: Path) -> tuple[dict[str, bytes], list[Finding]]:
    """Return the receipts recorded with the run, and failures for those that are no receipts any more.

    A run of an older version recorded those of its rounds alone; then the workspace's stand in for the rest.
    """
    recorded: dict[str, bytes] = {}
    broken = []
    for stage, content in (dossier.receipts or receipts_here(workspace)).items():
        try:
            parse(stage, content)
            recorded[stage] = content
        except ValueError as error:
            broken.append(failed("receipts", receipt_path(stage), "a receipt", str(error), "cannot be read"))
    return recorded, broken


def _walk(tracker: Tracker, dossier: Dossier, evidence: Evidence, start: Start, scratch: Path, say: Say) -> list[Finding]:
    """Return every check of a lineage but its replay."""
    make_view(evidence.places, scratch / "view")
    derived = start(evidence, scratch / "view")
    workspace = evidence.workspace
    checks = links(evidence.receipts, evidence.stages)
    checks += lock.whose_receipts(evidence) + lock.entries(evidence)
    checks += outputs.in_workspace(evidence) + outputs.in_cache(evidence) + outputs.nowhere(evidence)
    say("comparing code and params with Git")
    states = code.snapshots(evidence, scratch)
    checks += code.commits(evidence) + code.code(evidence, states) + code.locked_code(evidence, states)
    checks += code.sources_lock(evidence, states)
    if len(evidence.current) == len(evidence.stages):
        checks += code.backdated(evidence, states)
    checks += _mlflow(dossier, evidence) + _decisions(tracker, dossier, scratch)
    say("deriving weights, metrics and verdict again")
    checks += derived()
    dropped = {sha256 for name, sha256, _ in dropped_versions(read_dropped(workspace)) if name == dossier.name}
    return checks + registry.inverse(dossier, evidence.receipts, _weights_of_versions(tracker, dossier, scratch), dropped)


def _mlflow(dossier: Dossier, evidence: Evidence) -> list[Finding]:
    """Return whether the index says what was recorded: the version, each round, the run and the aliases."""
    receipts = evidence.receipts
    checks = registry.version(dossier, receipts)
    for name in rounds_of(evidence.stages):
        record = dossier.rounds.get(name)
        if record is None:
            checks.append(unknown("mlflow files", name, "MLflow has no run of this round"))
            continue
        checks += copies_agree(evidence.recorded, record.receipts, f"run {record.run_id} ({name})")
        checks += registry.stored_files(record, receipts) + registry.params(record, receipts) + registry.metrics(record)
    try:
        checks += registry.run_record(dossier, read_runs(evidence.workspace, dossier.name))
    except UserError as error:
        checks.append(failed("run record", REFS, "records of runs", "a broken one", str(error)))
    return checks + registry.aliases(dossier, receipts, _chosen(dossier, evidence))


def _chosen(dossier: Dossier, evidence: Evidence) -> str | None:
    """Return the round that the selection in force has chosen, None when the workspace has gone on or has none."""
    content, place = dossier.selection, evidence.workspace / SELECTION
    if content is None or not place.exists() or place.read_bytes() != content:
        return None
    try:
        chosen = parse_object(content)["selected"]
    except (ValueError, KeyError):  # what the index stores is compared with what was written elsewhere
        return None
    recorded = evidence.recorded.get(f"distill@{chosen}")
    return chosen if recorded is not None and evidence.here.get(f"distill@{chosen}") == recorded else None


def _decisions(tracker: Tracker, dossier: Dossier, scratch: Path) -> list[Finding]:
    """Return whether the log is intact, and whether the decisions about this version's weights hold again."""
    workspace, log = tracker.workspace, dossier.log
    if not dossier.in_git:
        sentence = "the workspace is in no Git repository, where decisions are recorded"
        return [unknown("decision log", LOG, sentence)]
    known = {tags["model_sha256"]: number for number, tags in dossier.versions.items() if "model_sha256" in tags}
    checks = decisions.copies(workspace) + decisions.chain(log, dossier.name)
    checks += approvals.approvals(tracker, log, scratch) + approvals.answer_files(workspace, log)
    checks += decisions.without_version(log, dossier.name, known)
    for entry in log:
        if entry["candidate"]["model_sha256"] == dossier.tags.get("model_sha256"):
            try:
                checks += decisions.decision(tracker, dossier.versions, entry, scratch)
            except BROKEN as error:  # evidence in MLflow that cannot be read any more is a fault, not a crash
                subject, words = f"decision {entry['number']}", f"{type(error).__name__}: {error}"
                expected, sentence = "evidence that can be read", "cannot be derived"
                checks.append(failed("decision evidence", subject, expected, words, sentence))
    return checks


def _weights_of_versions(tracker: Tracker, dossier: Dossier, scratch: Path) -> dict[str, str | None]:
    """Return number -> sha256 of the weights of each version by the receipt of its own run."""
    weights: dict[str, str | None] = dict.fromkeys(dossier.versions)
    for number, tags in dossier.versions.items():
        place = tracker.run_files(tags["run_id"], "receipts", scratch) if "run_id" in tags else None
        path = place / f"distill@{tags['round']}.json" if place else None
        if path is not None and path.exists():
            with contextlib.suppress(ValueError):  # a receipt that is none tells nothing
                weights[number] = registry.weights_of({path.stem: parse(path.stem, path.read_bytes())}, tags["round"])
    return weights


def _graph(evidence: Evidence, checks: Sequence[Finding]) -> dict[str, Any]:
    """Return the stages with the worst result of the checks about each, for people to see where it broke, and the edges."""
    receipts, stages = evidence.receipts, evidence.stages
    writers = producers(receipts)
    worst = dict.fromkeys(stages, "PASS")
    for check in checks:
        head = check.subject.partition(":")[0]
        stage = writers.get(check.subject) or check.subject.removeprefix(f"{RECEIPTS}/").removesuffix(".json")
        for name in (stage, head):
            if name in worst and (check.result == "FAIL" or (check.result == "UNKNOWN" and worst[name] == "PASS")):
                worst[name] = check.result
    rows = [
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
    return {"stages": rows, "edges": edges(receipts, stages)}
