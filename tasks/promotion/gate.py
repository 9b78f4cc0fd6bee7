"""What a version has to show to become champion: its verdict under today's rules, its bytes, and the rules of `promotion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.files import file_sha256
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
from tasks.promotion.decisions import VersionRecord
from tasks.promotion.versions import Evaluation, Version, as_registered, read_evaluation, read_version
from tasks.registry.reading import Reader

Answers = Mapping[str, Answer]
NOTHING: Final[Answers] = {}
NO_RULES: Final = "all that is asked of a promotion is kept"


@dataclass(frozen=True)
class Case:
    """What is judged: a version, by which rules of `promotion`, on which evaluations (of student, teacher and champion)."""

    params: Params
    rules: Sequence[Rule | Asked]
    version: Version
    evaluations: Mapping[str, Evaluation]


def judge_promotion(
    tracker: Reader, params: Params, candidate: VersionRecord, champion: VersionRecord | None, known: Answers = NOTHING
) -> dict[str, Any]:
    """Return `verdict`, `sentence` and `rules` for a candidate, with sha256 of the evidence that was read.

    Rules versus champion are asked once there is a champion by the log. A champion whose evidence is gone holds them.
    `known` are answers of checks that are taken as they were given, for an audit that starts no model.
    """
    case = _read_case(tracker, params, candidate, as_registered(tracker, champion))
    return _judge(case, [_weights(case.version), _round(params, case.version)], known)


def judge_first(
    tracker: Reader, params: Params, candidate: VersionRecord, verdict: Mapping[str, Any], known: Answers = NOTHING
) -> dict[str, Any]:
    """Return the same for the first champion ever, whose round has just been judged with this verdict."""
    case = _read_case(tracker, params, candidate, None)
    given = [_weights(case.version), *verdict["rules"]]
    if verdict["verdict"] != "pass":
        given.append(_check("round", str(verdict["verdict"]), f"gates of {candidate['round']}: {verdict['sentence']}"))
    return _judge(case, given, known)


def judge_rollback(tracker: Reader, candidate: VersionRecord) -> dict[str, Any]:
    """Return the verdict on going back: the bytes must be those that were decided on; no metric is asked."""
    check = _weights(read_version(tracker, candidate))
    return {"verdict": check["result"], "sentence": check["sentence"], "rules": [check], "evidence": {}}


def _read_case(tracker: Reader, params: Params, candidate: VersionRecord, champion: VersionRecord | None) -> Case:
    asked = [rule_of(gate) for gate in params.promotion.gates]
    rules = [rule for rule in asked if isinstance(rule, Asked) or rule.versus != "champion" or champion is not None]
    measured = [rule for rule in rules if isinstance(rule, Rule)]
    sets = {rule.set for rule in measured if rule.set is not None}
    sets |= {SAMPLES} if any(rule.metric == "repetition_rate" for rule in measured) else set()
    version = read_version(tracker, candidate, sets)
    evaluations = {"student": version.evaluation, "teacher": version.teacher}
    if champion is not None:
        evaluations["champion"] = read_evaluation(tracker, champion["run_id"], sets)
    return Case(params, rules, version, evaluations)


def _judge(case: Case, given: Sequence[Mapping[str, Any]], known: Answers) -> dict[str, Any]:
    """Return the verdict of what is `given` and of the rules of `promotion` together."""
    models = {who: model for who, read in case.evaluations.items() if (model := read.model(who)) is not None}
    costs = {who: cost for who, read in case.evaluations.items() if (cost := read.read("cost.json")) is not None}
    gathered, pairs, names = gather_for(case.params, [*case.rules], models)
    asked = [rule.name for rule in case.rules if isinstance(rule, Asked) and rule.name not in known]
    checks = {**answers(case.version, asked), **known}
    result = judge(case.rules, {**cost_evidence(costs), **gathered}, pairs, names, case.params.seed, checks)
    judged = [*given, *result["rules"]]
    blocking = [rule["result"] for rule in judged if rule["severity"] == "block"]
    verdict = "fail" if "fail" in blocking else "pass" if set(blocking) == {"pass"} else "hold"
    against = "" if "champion" in case.evaluations else "; there was no champion to compare with"
    selection = _selection(case.version)
    evidence = {
        f"{who}/{path.name}": file_sha256(path)
        for who, model in models.items()
        for path in sorted(model.predictions.glob("*.parquet"))
    }
    sentence = (_reasons(judged) or NO_RULES) + against + _of_how_many(selection)
    return {"verdict": verdict, "sentence": sentence, "rules": judged, "evidence": evidence, "selection": selection}


def gather_for(params: Params, rules: list[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    """Return the evidence on rows that a classifier stored, or on blocks that a language model did."""
    if isinstance(params, ClassificationParams):
        return gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
    return gather_blocks(rules, models)


def _selection(version: Version) -> dict[str, Any] | None:
    """Return among how many rounds the version's run chose, and by which rule; None when that was not recorded."""
    chosen = version.selection
    return {key: chosen.get(key) for key in ("num_candidates", "rule", "sentence")} if chosen else None


def _of_how_many(selection: Mapping[str, Any] | None) -> str:
    count = selection["num_candidates"] if selection else None
    return f"; one of {count} rounds that were compared" if count else ""


def _reasons(rules: Sequence[Mapping[str, Any]]) -> str:
    broken = [rule for rule in rules if rule["severity"] == "block" and rule["result"] != "pass"]
    return "; ".join(rule["sentence"] for rule in broken)


def _weights(version: Version) -> dict[str, Any]:
    """Return whether the registered weights are those that were evaluated."""
    path, number = version.weights, version.record["version"]
    if path is None:
        return _check("weights", "hold", f"weights: version {number} has no model.safetensors in the registry")
    if file_sha256(path) != version.record["model_sha256"]:
        return _check("weights", "fail", f"weights: {path} is not the file that was evaluated; its sha256 differs")
    return _check("weights", "pass", "weights: the registered file is the one that was evaluated")


def _round(params: Params, version: Version) -> dict[str, Any]:
    """Return the round's own verdict, held if it was judged by other rules than params.yaml has now."""
    verdict, number = version.evaluation.read("verdict.json"), version.record["version"]
    if verdict is None:
        return _check("round", "hold", f"gates: version {number} has no verdict; `compactlm run` makes one")
    asked = [identity(rule_of(gate)) for gate in params.gates]
    judged = [{key: rule.get(key) for key in wanted} for rule, wanted in zip(verdict["rules"], asked, strict=False)]
    if len(verdict["rules"]) != len(asked) or judged != asked:
        words = f"gates: version {number} was judged by other rules than params.yaml has now; "
        return _check("round", "hold", words + "`compactlm run` judges it again")
    words = _reasons(verdict["rules"]) or str(verdict.get("sentence", "kept"))
    return _check("round", str(verdict["verdict"]), f"gates of {version.record['round']}: {words}")


def _check(metric: str, result: str, sentence: str) -> dict[str, Any]:
    return {"metric": metric, "severity": "block", "result": result, "sentence": sentence}
