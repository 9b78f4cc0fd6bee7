"""What a version has to show to become champion: its verdict under today's rules, its bytes, and the rules of `promotion`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.files import file_sha256, read_json
from tasks.gates.causal_lm import gather_blocks
from tasks.gates.classification import gather
from tasks.gates.costs import cost_evidence
from tasks.gates.evidence import Gathered, Model
from tasks.gates.judge import identity, judge
from tasks.gates.rules import Answer, Asked, Rule
from tasks.measuring.predictions import SAMPLES
from tasks.params.base import Params
from tasks.params.classification import ClassificationParams
from tasks.params.gates import rule_of
from tasks.promotion.checks import answers
from tasks.registry.tracking import PREFIX, Tracker

Version = Mapping[str, Any]
Answers = Mapping[str, Answer]
NOTHING: Final[Answers] = {}
NO_RULES: Final = "all that is asked of a promotion is kept"


def judge_promotion(
    tracker: Tracker, params: Params, candidate: Version, champion: Version | None, known: Answers = NOTHING
) -> dict[str, Any]:
    """Return `verdict`, `sentence` and `rules` for a candidate, with sha256 of the evidence that was read.

    Rules versus champion are asked once there is a champion by the log. A champion whose evidence is gone holds them.
    `known` are answers of checks that are taken as they were given, for an audit that starts no model.
    """
    champion = as_registered(tracker, champion)
    given = [_bytes(tracker, candidate), _round(tracker, params, candidate)]
    return _judge(tracker, params, candidate, champion, given, known)


def judge_first(
    tracker: Tracker, params: Params, candidate: Version, verdict: Mapping[str, Any], known: Answers = NOTHING
) -> dict[str, Any]:
    """Return the same for the first champion ever, whose round has just been judged with this verdict."""
    given = [_bytes(tracker, candidate), *verdict["rules"]]
    if verdict["verdict"] != "pass":
        given.append(_check("round", str(verdict["verdict"]), f"gates of {candidate['round']}: {verdict['sentence']}"))
    return _judge(tracker, params, candidate, None, given, known)


def _judge(
    tracker: Tracker,
    params: Params,
    candidate: Version,
    champion: Version | None,
    given: list[dict[str, Any]],
    known: Answers,
) -> dict[str, Any]:
    """Return the verdict of what is `given` and of the rules of `promotion` together."""
    asked = [rule_of(gate) for gate in params.promotion.gates]
    rules = [rule for rule in asked if isinstance(rule, Asked) or rule.versus != "champion" or champion is not None]
    needed = {rule.set for rule in rules if not isinstance(rule, Asked) and rule.set is not None}
    needed |= {SAMPLES} if any(rule.metric == "repetition_rate" for rule in rules if isinstance(rule, Rule)) else set()
    runs = {"student": candidate["run_id"], "teacher": candidate["teacher_run_id"]}
    runs |= {"champion": champion["run_id"]} if champion is not None else {}
    models = {who: model for who, run in runs.items() if (model := read_model(tracker, who, run, needed)) is not None}
    found, pairs, names = gather_for(params, rules, models)
    costs = {
        who: read_json(path)
        for who, run in runs.items()
        if run and (path := tracker.local_file(run, "evidence/cost.json")) is not None
    }
    checks = [rule.name for rule in rules if isinstance(rule, Asked) and rule.name not in known]
    told = {**answers(tracker, candidate, checks), **known}
    result = judge(rules, {**cost_evidence(costs), **found}, pairs, names, params.seed, told)
    judged = [*given, *result["rules"]]
    blocking = [one["result"] for one in judged if one["severity"] == "block"]
    verdict = "fail" if "fail" in blocking else "pass" if set(blocking) == {"pass"} else "hold"
    against = "" if champion is not None else "; there was no champion to compare with"
    reasons = [one["sentence"] for one in judged if one["severity"] == "block" and one["result"] != "pass"]
    selection = _selection(tracker, candidate)
    evidence = {
        f"{who}/{path.name}": file_sha256(path)
        for who, model in models.items()
        for path in sorted(model.predictions.glob("*.parquet"))
    }
    sentence = ("; ".join(reasons) or NO_RULES) + against + _of_how_many(selection)
    return {"verdict": verdict, "sentence": sentence, "rules": judged, "evidence": evidence, "selection": selection}


def _selection(tracker: Tracker, candidate: Version) -> dict[str, Any] | None:
    """Return among how many rounds the candidate's run chose, and by which rule; None when that was not recorded."""
    run = tracker.parent_of(candidate["run_id"]) if candidate["run_id"] else None
    with tempfile.TemporaryDirectory(prefix="compactlm-selection-") as scratch:
        path = tracker.run_files(run, "selection.json", Path(scratch)) if run else None
        content = read_json(path) if path is not None else None
    return content and {key: content.get(key) for key in ("num_candidates", "rule", "sentence")}


def _of_how_many(selection: Mapping[str, Any] | None) -> str:
    count = selection["num_candidates"] if selection else None
    return f"; one of {count} rounds that were compared" if count else ""


def as_registered(tracker: Tracker, version: Version | None) -> Version | None:
    """Return a version of the log with the ids it has now: an index that was made again has others."""
    if version is None or tracker.has_run(version["run_id"]):
        return version
    ours = [one for one in tracker.versions() if one.tags[PREFIX + "model_sha256"] == version["model_sha256"]]
    keys = ("model_id", "run_id", "teacher_run_id")
    return {**version, **{key: ours[0].tags.get(PREFIX + key) if ours else None for key in keys}}


def gather_for(params: Params, rules: list[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    """Return the evidence on rows that a classifier stored, or on blocks that a language model did."""
    if isinstance(params, ClassificationParams):
        return gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
    return gather_blocks(rules, models)


def judge_rollback(tracker: Tracker, candidate: Version) -> dict[str, Any]:
    """Return the verdict on going back: the bytes must be those that were decided on; no metric is asked."""
    check = _bytes(tracker, candidate)
    return {"verdict": check["result"], "sentence": check["sentence"], "rules": [check], "evidence": {}}


def read_model(tracker: Tracker, who: str, run_id: str | None, sets: set[str]) -> Model | None:
    """Return an evaluation from MLflow, the predictions of `sets` fetched where they are kept elsewhere."""
    quality = tracker.local_file(run_id, "evidence/quality.json") if run_id else None
    if run_id is None or quality is None:
        return None
    folder = quality.parent.parent / "predictions"
    for name in sorted(sets):
        found = tracker.local_file(run_id, f"predictions/{name}.parquet")
        folder = found.parent if found is not None else folder
    return Model(who, read_json(quality)["sets"], folder)


def _bytes(tracker: Tracker, candidate: Version) -> dict[str, Any]:
    """Return whether the registered weights are those that were evaluated."""
    path: Path | None = None
    if candidate["model_id"]:
        path = tracker.local_model(candidate["model_id"]) / "artifacts" / "model" / "model.safetensors"
    if path is None or not path.is_file():
        return _check(
            "weights", "hold", f"weights: version {candidate['version']} has no model.safetensors in the registry"
        )
    if file_sha256(path) != candidate["model_sha256"]:
        return _check("weights", "fail", f"weights: {path} is not the file that was evaluated; its sha256 differs")
    return _check("weights", "pass", "weights: the registered file is the one that was evaluated")


def _round(tracker: Tracker, params: Params, candidate: Version) -> dict[str, Any]:
    """Return the round's own verdict, held if it was judged by other rules than params.yaml has now."""
    path = tracker.local_file(candidate["run_id"], "evidence/verdict.json") if candidate["run_id"] else None
    if path is None:
        return _check(
            "round", "hold", f"gates: version {candidate['version']} has no verdict; `compactlm run` makes one"
        )
    verdict = read_json(path)
    asked = [identity(rule_of(gate)) for gate in params.gates]
    judged = [{key: one.get(key) for key in rule} for one, rule in zip(verdict["rules"], asked, strict=False)]
    if len(verdict["rules"]) != len(asked) or judged != asked:
        words = f"gates: version {candidate['version']} was judged by other rules than params.yaml has now; "
        return _check("round", "hold", words + "`compactlm run` judges it again")
    reasons = [one["sentence"] for one in verdict["rules"] if one["severity"] == "block" and one["result"] != "pass"]
    words = "; ".join(reasons) or str(verdict.get("sentence", "kept"))
    return _check("round", str(verdict["verdict"]), f"gates of {candidate['round']}: {words}")


def _check(metric: str, result: str, sentence: str) -> dict[str, Any]:
    return {"metric": metric, "severity": "block", "result": result, "sentence": sentence}
