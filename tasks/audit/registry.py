"""Checks of what MLflow says: versions, aliases, params, metrics and stored files against the receipts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.artifacts import TEACHER, RoundPaths
from tasks.audit.dossier import Dossier, RoundRecord
from tasks.lineage.chain import Receipts, sha256_of, written
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.params.edit import flatten_params
from tasks.params.recorded import recorded_params
from tasks.registry.records import RANDOM_INIT, flatten_numbers, flatten_quality, flatten_random_start, flatten_search, former_key

RANDOM_START: Final = f"{RANDOM_INIT}/quality.json"
# name of a stored file -> the folder of the round that holds it
EVIDENCE: Final = {
    "quality.json": "evaluated",
    "cost.json": "evaluated",
    "parity.json": "exported",
    "golden.json": "exported",
    "verdict.json": "",
    "summary.json": "trained",
    "plan.json": "pruned",
    "search.json": "trained",
    RANDOM_START: "",
}
PREDICTIONS: Final = "predictions/"  # before the names of the stored predictions


def _in_round(name: str, *parts: str) -> str:
    """Return the path of a round's file in the receipts."""
    return RoundPaths(Path(), name).folder.joinpath(*parts).as_posix()


def _onnx(name: str) -> str:
    return _in_round(name, "exported", "model.onnx")


def _outputs(receipts: Receipts) -> dict[str, str]:
    """Return path -> sha256 of all that the stages wrote."""
    return {path: file["sha256"] for path, file in written(receipts).items()}


def weights_of(receipts: Receipts, name: str) -> str | None:
    """Return the sha256 of a round's weights by the receipts, None when they do not tell it."""
    return _outputs(receipts).get(RoundPaths(Path(), name).weights.as_posix())


def version(dossier: Dossier, receipts: Receipts) -> list[Finding]:
    """Return whether the tags of the version say what the receipts and the stored evidence say."""
    tags, name = dossier.tags, dossier.round
    record = dossier.rounds[name]
    expected = {
        "model_sha256": weights_of(receipts, name),
        "onnx_sha256": _outputs(receipts).get(_onnx(name), ""),  # a language model has none
        "verdict": record.content("verdict.json").get("verdict"),
        "model_id": record.model_id,
        "parent": receipts[f"distill@{name}"]["params"]["rounds"][name]["parent"],
    }
    cost = record.content("cost.json")
    expected |= {key: str(cost.get(key)) for key in ("params_total", "params_non_embedding", "size_bytes")}
    parent = tags.get("parent", "")
    for key, other in (("teacher_model_id", TEACHER), ("parent_model_id", TEACHER if parent == "r0" else parent)):
        if other in dossier.rounds:
            expected[key] = dossier.rounds[other].model_id
    subject = f"{dossier.name}/{dossier.version}"
    findings: list[Finding] = []
    for key, value in expected.items():
        sentence = "the tag says something else than the receipts"
        findings += compare("version", f"{subject}: {key}", value, tags.get(key), sentence)
    return whole("version", subject, findings, "its tags say what the receipts say")


def stored_files(record: RoundRecord, receipts: Receipts) -> list[Finding]:
    """Return whether the model and the evidence kept in MLflow are, file by file, what the stages wrote."""
    outputs, check = _outputs(receipts), "mlflow files"
    findings: list[Finding] = []
    for name, content in record.evidence.items():
        is_rows = name.startswith(PREDICTIONS)
        path = _in_round(record.name, "evaluated" if is_rows else EVIDENCE.get(name, "?"), name)
        subject = f"{record.name}: {name if is_rows else f'evidence/{name}'}"
        findings += compare(check, subject, outputs.get(path), sha256_of(content), "not what the stage wrote")
    model = f"{record.name}: model {record.model_id}"
    if record.model_files.get("files"):
        findings += _served_files(record, outputs, f"{model}: artifacts/")
        if record.model_files_sha256 is not None:
            sentence = "a file of the served model, perhaps its code, was changed since it was stored"
            findings += compare(check, model, record.model_files_sha256, record.model_files["sha256"], sentence)
    else:
        findings.append(unknown(check, model, "its files cannot be found"))
    return whole(check, record.name, findings, "the stored model and evidence are what the stages wrote")


def _served_files(record: RoundRecord, outputs: Mapping[str, str], subject: str) -> list[Finding]:
    """Return the files of the served model that are not those of the round, each named after `subject`."""
    prefix, folder = "artifacts/", _in_round(record.name, "trained")
    files = record.model_files["files"].items()
    here = {name.removeprefix(prefix): file["sha256"] for name, file in files if name.startswith(prefix)}
    wanted = {path.removeprefix(f"{folder}/"): sha256 for path, sha256 in outputs.items() if path.startswith(f"{folder}/model/")}
    if _onnx(record.name) in outputs:
        wanted["model.onnx"] = outputs[_onnx(record.name)]
    sentence, none = "the model that MLflow serves is not the one that was trained and judged", "no such file"
    findings: list[Finding] = []
    for name in sorted({*here, *wanted}):
        expected, actual = wanted.get(name, none), here.get(name, none)
        findings += compare("mlflow files", f"{subject}{name}", expected, actual, sentence)
    return findings


def params(record: RoundRecord, receipts: Receipts) -> list[Finding]:
    """Return whether the params MLflow shows of a round are those its training stage read.

    An index that was made again by a later version also shows the keys that it has since, as it reads a record without them.
    """
    values = receipts[RoundPaths(Path(), record.name).training_stage]["params"]
    expected, filled = _of_training(record.name, values), _of_training(record.name, _filled(values))
    sentence = "MLflow shows another value than the stage read"
    findings: list[Finding] = []
    for key in sorted({*expected, *record.params}):
        shown = record.params.get(key)
        if key not in expected and shown is not None and shown == filled.get(key):
            continue
        findings += compare("mlflow params", f"{record.name}: {key}", expected.get(key), shown, sentence)
    return whole("mlflow params", record.name, findings, f"{len(expected)} params are those of the receipt")


def _filled(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return params with the keys that this version has; as they are where it cannot read them."""
    try:
        return recorded_params(values).model_dump(mode="json")
    except ValidationError:
        return values


def _of_training(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the params of a round's training by their dotted names, as MLflow shows them."""
    chosen: dict[str, Any] = (
        {"teacher": values["teacher"]}
        if name == TEACHER
        else {"prune": values["prune"], "distill": values["distill"], "rounds": values["rounds"][name]}
    )
    return {"seed": str(values["seed"]), **flatten_params("", chosen)}


def metrics(record: RoundRecord) -> list[Finding]:
    """Return whether the final numbers MLflow shows are those of the stored evidence, each recorded once."""
    try:
        expected = flatten_quality(record.content("quality.json")) if "quality.json" in record.evidence else {}
        expected |= flatten_random_start(record.content(RANDOM_START)) if RANDOM_START in record.evidence else {}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [failed("mlflow metrics", f"{record.name}: quality.json", "a report", repr(error), "cannot be read")]
    expected |= flatten_numbers("cost", record.content("cost.json"))
    expected |= flatten_numbers("parity", record.content("parity.json"))
    expected |= flatten_search(record.content("search.json"))
    if not expected.keys() <= record.metrics.keys():
        expected = {key if key in record.metrics else former_key(key): value for key, value in expected.items()}
    sentence = "MLflow shows another number than the evidence, or a second one added later"
    findings: list[Finding] = []
    for key, value in expected.items():
        shown = record.metrics.get(key, [])
        findings += compare("mlflow metrics", f"{record.name}: {key}", [(value, 0)], shown, sentence)
    return whole("mlflow metrics", record.name, findings, f"{len(expected)} numbers are those of the evidence")


def aliases(dossier: Dossier, receipts: Receipts, chosen: str | None) -> list[Finding]:
    """Return whether the aliases point where recorded choices put them, and only at versions that passed their gates.

    `chosen`: the round that the selection in force has chosen, None when this run is not the latest one.
    """
    if not dossier.in_git or dossier.log_fault is not None:
        return []  # the checks of the log say so
    if dossier.stale is not None and not dossier.stale.forked:
        return [unknown("alias", dossier.name, dossier.stale.sentence)]
    expected = dict(dossier.decided)
    if chosen is not None:
        known = {tags.get("model_sha256"): number for number, tags in dossier.versions.items()}
        expected["challenger"] = known.get(weights_of(receipts, chosen))
    checks = [_alias(dossier, alias, number, expected) for alias, number in dossier.aliases.items()]
    if dossier.stale is not None:
        checks.append(failed("alias", dossier.name, "one log of decisions", "two", dossier.stale.sentence))
    return checks + [
        failed("alias", alias, f"version {number}", "no alias", "the alias was taken away")
        for alias, number in expected.items()
        if number is not None and alias not in dossier.aliases
    ]


def _alias(dossier: Dossier, alias: str, number: str, expected: Mapping[str, str | None]) -> Finding:
    here = f"version {number}"
    if dossier.versions.get(number, {}).get("verdict") != "pass":
        return failed("alias", alias, "a version whose gates pass", here, "it may not be promoted")
    if expected.get(alias, number) != number:
        wanted = f"version {expected[alias]}" if expected[alias] else "no alias"
        return failed("alias", alias, wanted, here, "the alias was moved, and no recorded decision did it")
    return passed("alias", alias, f"points at {here}, as recorded")


def inverse(
    dossier: Dossier, receipts: Receipts, known: Mapping[str, str | None], dropped: Collection[str] = ()
) -> list[Finding]:
    """Return versions without receipts and judged rounds without a version.

    `known`: number of each version -> sha256 of the weights that the receipts of its own run say it has, None without.
    `dropped`: those of the versions that `compactlm gc` has taken away.
    """
    check = "inverse scan"
    findings: list[Finding] = []
    for number, tags in dossier.versions.items():
        subject = f"{dossier.name}/{number}"
        if not tags or known[number] is None:
            sentence = "its run has no receipt of the training" if tags else "registered by hand: nothing is known of it"
            findings.append(failed(check, subject, "a receipt", "none", sentence))
        else:
            sentence = "the receipts of its run tell of other weights"
            findings += compare(check, subject, known[number], tags.get("model_sha256"), sentence)
    registered = {tags.get("model_sha256") for tags in dossier.versions.values()} | {*dropped}
    for stage in receipts:
        name = stage.removeprefix("gate@")
        if name != stage and weights_of(receipts, name) not in registered:
            findings.append(failed(check, stage, "a registered version", "none", f"{name} was judged and is missing"))
    return whole(check, dossier.name, findings, f"{len(dossier.versions)} versions have receipts, and the reverse")


def run_record(dossier: Dossier, records: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return whether MLflow says of the run and of the versions what the records of runs in Git say.

    `records` are those of this model, oldest first; a clone has none until it fetches them.
    """
    if not records:
        return []
    of_run = [record for record in records if record["inputs_digest"] == dossier.inputs_digest]
    if not of_run:
        return [unknown("run record", dossier.run_id, "Git has no record of this run; `compactlm run` makes one")]
    ref, root = of_run[-1]["ref"], of_run[-1]["receipts_root"]
    sentence = "MLflow has other receipts of this run than were recorded in Git; if a run was cut short, run it again"
    findings = compare("run record", ref, root, dossier.receipts_root, sentence)
    for sha256, number in records[-1]["versions"].items():
        here = dossier.versions.get(number, {}).get("model_sha256", "no such version")
        sentence = "the version has other weights than were recorded in Git"
        findings += compare("run record", f"{dossier.name}/{number}", sha256, here, sentence)
    return whole("run record", ref, findings, "receipts and versions are those recorded in Git")
