"""Checks of the log of decisions: both copies, their chain, and whether what was read and judged is read and judged so again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.artifacts import TEACHER, RoundPaths
from tasks.errors import ParamsError, UserError
from tasks.files import read_json
from tasks.gates.rules import Answer
from tasks.git import snapshot
from tasks.lineage.chain import edits_lost, evaluation_of, files_of
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.params.base import Params
from tasks.params.file import parse_yaml
from tasks.params.recorded import recorded_params
from tasks.promotion.checks import OF_MODEL
from tasks.promotion.decisions import (
    LOG,
    REFS,
    Decision,
    VersionRecord,
    faults,
    read_lines,
    read_refs,
    shape_faults,
    version_record,
)
from tasks.promotion.gate import judge_first, judge_promotion, judge_rollback
from tasks.registry.tracking import Tracker

NAME: Final = "decision log"
Versions = Mapping[str, Mapping[str, str]]  # number -> tags


def copies(workspace: Path) -> list[Finding]:
    """Return whether the log's two copies, the file and the Git refs, are intact chains that say the same."""
    findings: list[Finding] = []
    logs: dict[str, list[Decision]] = {}
    for where, read in ((LOG, read_lines), (REFS, read_refs)):
        try:
            logs[where] = read(workspace)
        except (UserError, ValueError, IndexError) as error:
            findings.append(failed(NAME, where, "decisions that can be read", "none", str(error)))
            continue
        findings += [
            failed(NAME, where, "an intact chain", "a broken one", words)
            for words in (*shape_faults(logs[where]), *faults(logs[where]))
        ]
    findings += _lines_as_written(workspace, logs.get(LOG, []))
    lines, refs = logs.get(LOG), logs.get(REFS)
    if lines is not None and refs is not None:
        for number, (line, ref) in enumerate(zip(lines, refs, strict=False), start=1):
            words = f"decision {number} is another one in {LOG} than below {REFS}"
            findings += compare(NAME, f"{LOG}: line {number}", ref.get("sha256"), line.get("sha256"), words)
        if len(lines) < len(refs) or 0 < len(refs) < len(lines):  # a clone has no refs at all
            words = "decisions are missing; `compactlm history --repair` writes them from the other copy"
            where, here, there = (LOG, lines, refs) if len(lines) < len(refs) else (REFS, refs, lines)
            findings.append(failed(NAME, where, f"{len(there)} decisions", f"{len(here)}", words))
    count = len(lines or refs or ())
    return whole(NAME, LOG, findings, f"{count} decisions are an intact chain, and file and Git refs agree")


def _lines_as_written(workspace: Path, lines: Sequence[Decision]) -> list[Finding]:
    """Return the lines that mean what they should and yet have other bytes than were written."""
    place = workspace / LOG
    text = place.read_bytes().decode("utf-8", "replace") if place.exists() else ""
    findings: list[Finding] = []
    for number, (line, entry) in enumerate(zip(text.split("\n"), lines, strict=False), start=1):
        written = json.dumps(entry, sort_keys=True)
        findings += compare(NAME, f"{LOG}: line {number}", written, line, "has other bytes than were written")
    return findings


def chain(log: Sequence[Decision], name: str) -> list[Finding]:
    """Return whether each decision about a model starts where the one before it ended, and does what its verdict says."""
    before: dict[str, Any] = {"champion": None, "previous": None}
    findings: list[Finding] = []
    for entry in (entry for entry in log if entry["model"] == name):
        subject, sentence = f"{LOG}: decision {entry['number']}", "does not start where the decision before it ended"
        findings += compare(NAME, subject, before, entry["before"], sentence)
        done = entry["outcome"] == "done"
        after = {"champion": entry["candidate"], "previous": entry["before"]["champion"]} if done else entry["before"]
        before = {key: entry[key] for key in ("champion", "previous")}
        findings += compare(NAME, subject, after, before, "leaves another champion than it decided on")
        passes = entry["verdict"]["verdict"] == "pass"
        findings += compare(NAME, subject, passes, done, "is not what its verdict says")
    return findings


@dataclass(frozen=True)
class Evaluation:
    """One recorded evaluation of a model: the version as decisions name it, digests of its predictions, its verdict."""

    version: VersionRecord
    predictions: Mapping[str, str]  # file, such as test.parquet -> sha256 by the receipt
    verdict: Mapping[str, Any]


def evaluations(tracker: Tracker, versions: Versions, sha256: str, scratch: Path) -> list[Evaluation]:
    """Return the evaluations of a model by the sha256 of its weights, the one its version names now first.

    The same weights may have been evaluated or judged more than once, and a decision was made on one of those times.
    """
    evaluated = []
    for number, tags in versions.items():
        if tags.get("model_sha256") == sha256:
            others = tracker.find_runs({"kind": "round", "model_id": tags["model_id"]})
            for run_id in dict.fromkeys([tags["run_id"], *others]):
                named = version_record(number, tags)
                named["run_id"], named["teacher_run_id"] = run_id, tracker.run_tags(run_id).get("teacher_run_id")
                evaluated.append(_evaluation(tracker, named, run_id, tags["round"], scratch))
    return evaluated


def _evaluation(tracker: Tracker, version: VersionRecord, run_id: str, name: str, scratch: Path) -> Evaluation:
    receipt = tracker.run_files(run_id, f"receipts/{evaluation_of(name)}.json", scratch)
    verdict = tracker.run_files(run_id, "evidence/verdict.json", scratch)
    folder = f"{RoundPaths(Path(), name).predictions.as_posix()}/"
    files = files_of(read_json(receipt), "outputs") if receipt else {}
    predictions = {path.removeprefix(folder): file["sha256"] for path, file in files.items() if path.startswith(folder)}
    return Evaluation(version, predictions, read_json(verdict) if verdict else {})


def decision(tracker: Tracker, versions: Versions, entry: Decision, scratch: Path) -> list[Finding]:
    """Return whether a decision read what the evaluations wrote, and whether its rules give the same results again."""
    read = entry["verdict"].get("evidence", {})
    champion = entry["before"]["champion"]
    known = {
        "student": evaluations(tracker, versions, entry["candidate"]["model_sha256"], scratch),
        "champion": evaluations(tracker, versions, champion["model_sha256"], scratch) if champion else [],
    }
    used = {who: _matching(every, read, who, entry) for who, every in known.items() if every}
    run_id = used["student"].version["teacher_run_id"]
    if run_id:
        used["teacher"] = _evaluation(tracker, used["student"].version, run_id, TEACHER, scratch)
    check, subject = "decision evidence", f"decision {entry['number']}"
    findings: list[Finding] = []
    for name, sha256 in read.items():
        who, _, path = name.partition("/")
        if who in used and used[who].predictions:
            words = "the decision read other predictions than the evaluation wrote"
            findings += compare(check, f"{subject}: {name}", used[who].predictions.get(path), sha256, words)
        else:
            findings.append(unknown(check, f"{subject}: {name}", "no receipt of that evaluation is here"))
    words = f"{len(read)} files of predictions are those of the receipts"
    return whole(check, subject, findings, words) + _judged_again(tracker, entry, used, scratch)


def _matching(every: Sequence[Evaluation], read: Mapping[str, str], who: str, entry: Decision) -> Evaluation:
    """Return the evaluation on which a decision was made, the newest one when none fits."""
    wanted = {name.partition("/")[2]: sha256 for name, sha256 in read.items() if name.startswith(f"{who}/")}
    fitting = [which for which in every if wanted.items() <= which.predictions.items()]
    rules = entry["verdict"].get("rules", ())
    if entry["kind"] == "first" and who == "student":
        fitting = [which for which in fitting if all(rule in rules for rule in which.verdict.get("rules", ()))]
    if entry["kind"] == "promote" and who == "student":
        # Gates that were changed since have judged the same predictions again, maybe otherwise.
        results = [rule["result"] for rule in rules if rule.get("metric") == "round"]
        fitting = [which for which in fitting if which.verdict.get("verdict") in results] or fitting
    return (fitting or every)[0]


def _judged_again(tracker: Tracker, entry: Decision, used: Mapping[str, Evaluation], scratch: Path) -> list[Finding]:
    """Return whether the rules that were asked then give the same results on the stored files now."""
    subject, verdict = f"decision {entry['number']}", entry["verdict"]
    if entry["kind"] not in ("first", "promote", "rollback"):
        return [passed("decision", subject, f"{entry['kind']}: nothing was judged")]
    again = _verdict_again(tracker, entry, used, scratch)
    if isinstance(again, str):
        return [unknown("decision", subject, again)]
    # What people said is checked by their signatures; it is asked only when the other rules pass.
    asked = [rule for rule in verdict["rules"] if rule.get("metric") != "approval"]
    recorded = verdict["verdict"] if len(asked) == len(verdict["rules"]) else "pass"
    findings = compare("decision", f"{subject}: verdict", again.get("verdict"), recorded, "the rules say otherwise")
    rules = again.get("rules", [])
    if len(rules) != len(asked):
        return [*findings, failed("decision", f"{subject}: rules", len(rules), len(asked), "other rules")]
    for number, pair in enumerate(zip(rules, asked, strict=True), start=1):
        keys = sorted({key for rule in pair for key in rule} - {"sentence", "slices"})
        now, then = ({key: rule.get(key) for key in keys} for rule in pair)
        sentence = "is found otherwise on the stored files"
        findings += compare("decision", f"{subject}: rule {number}", now, then, sentence)
    return whole("decision", subject, findings, f"{len(rules)} rules give the same results on the stored files")


def _verdict_again(tracker: Tracker, entry: Decision, used: Mapping[str, Evaluation], scratch: Path) -> Mapping[str, Any] | str:
    """Return the verdict of the rules of that time on the stored files, or why it cannot be made."""
    student = used["student"]
    if entry["kind"] == "rollback":
        return judge_rollback(tracker, student.version)
    params = params_then(tracker.workspace, entry, scratch)
    if isinstance(params, str):
        return params
    if entry["before"]["champion"] and "champion" not in used:
        return "the champion of that time is not registered any more"
    known = {
        rule["check"]: Answer(rule["result"], "as it was answered then")
        for rule in entry["verdict"]["rules"]
        if rule.get("check") in OF_MODEL
    }
    if entry["kind"] == "first":
        if "rules" not in student.verdict:
            return "the round's verdict of that time is not recorded"
        return judge_first(tracker, params, student.version, student.verdict, known)
    champion = used["champion"].version if "champion" in used else None
    return judge_promotion(tracker, params, student.version, champion, known)


def without_version(log: Sequence[Decision], name: str, known: Mapping[str, str]) -> list[Finding]:
    """Return the decisions about a model that is not registered any more; `known`: sha256 of weights -> version."""
    findings = []
    for entry in log:
        candidate = entry["candidate"]
        if entry["model"] == name and candidate["model_sha256"] not in known:
            sentence = f"version {candidate['version']} was decided on and is not registered"
            subject, weights = f"decision {entry['number']}", candidate["model_sha256"]
            findings.append(failed("inverse scan", subject, weights, "no such version", sentence))
    return findings


class BrokenObjectError(ValueError):
    """Git has a file and cannot read it any more."""


def file_then(workspace: Path, entry: Decision, name: str, scratch: Path) -> bytes | None:
    """Return a file as Git recorded it for a decision, None where Git has none; BrokenObjectError where it has a broken one."""
    state = entry["git"]
    files = snapshot(workspace, state["commit"], state.get("diff"), scratch)
    if files is None or name not in files.blobs:
        return None
    content = files.read([name]).get(name)
    if content is None:
        raise BrokenObjectError(f"Git cannot read {name} of commit {state['commit']} any more")
    return content


def params_then(workspace: Path, entry: Decision, scratch: Path) -> Params | str:
    """Return the params of the time of a decision, or why they cannot be known; raises as `file_then`."""
    state = entry["git"]
    if state["commit"] is None or edits_lost(state):
        return "params.yaml of that time is not kept"
    content = file_then(workspace, entry, "params.yaml", scratch)
    if content is None:
        return f"Git cannot give params.yaml of commit {state['commit']}"
    try:
        return recorded_params(parse_yaml(content.decode(), "params.yaml"))
    except ValidationError as error:
        return f"params.yaml of that time is not of this version: {error.errors()[0]['msg']}"
    except (ParamsError, ValueError) as error:
        return f"params.yaml of that time cannot be read: {error}"
