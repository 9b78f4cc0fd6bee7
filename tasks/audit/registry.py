"""Checks of what MLflow says: versions, aliases, params, metrics and stored files against the receipts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.artifacts import TEACHER
from tasks.audit.dossier import Dossier, RoundRecord
from tasks.lineage.chain import Receipts, files_of
from tasks.lineage.checks import Finding, compare, failed, passed, unknown, whole
from tasks.params.edit import flatten_params
from tasks.registry.records import flatten_numbers, flatten_quality, flatten_search

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
}
ONNX: Final = "exported/model.onnx"
PREDICTIONS: Final = "predictions/"  # before the names of the stored predictions
WEIGHTS: Final = "trained/model/model.safetensors"


def sha256(content: bytes) -> str:
    """Return the digest of bytes in hex."""
    return hashlib.sha256(content).hexdigest()


def path_in(name: str, path: str) -> str:
    """Return the path of a round's file."""
    return f"artifacts/rounds/{name}/{path}".replace("//", "/")


def name_of(label: str) -> str:
    """Return the round's folder for its label: the teacher's evaluation is called r0."""
    return TEACHER if label == "r0" else label


def outputs(receipts: Receipts) -> dict[str, str]:
    """Return path -> sha256 of all that the stages wrote."""
    return {path: one["sha256"] for receipt in receipts.values() for path, one in files_of(receipt, "outputs").items()}


def version(dossier: Dossier, receipts: Receipts) -> list[Finding]:
    """Return whether the tags of the version say what the receipts and the stored evidence say."""
    tags, wrote, name = dossier.tags, outputs(receipts), dossier.round
    record = dossier.rounds[name]
    expected = {
        "model_sha256": wrote.get(path_in(name, WEIGHTS)),
        "onnx_sha256": wrote.get(path_in(name, ONNX), ""),  # a language model has none
        "verdict": _json(record, "verdict.json").get("verdict"),
        "model_id": record.model_id,
        "parent": receipts[f"distill@{name}"]["params"]["rounds"][name]["parent"],
    }
    for key in ("params_total", "params_non_embedding", "size_bytes"):
        expected[key] = str(_json(record, "cost.json").get(key))
    for key, other in (("teacher_model_id", TEACHER), ("parent_model_id", name_of(tags.get("parent", "")))):
        if other in dossier.rounds:
            expected[key] = dossier.rounds[other].model_id
    found: list[Finding] = []
    subject = f"{dossier.name}/{dossier.version}"
    for key, value in expected.items():
        found += compare(
            "version", f"{subject}: {key}", value, tags.get(key), "the tag says something else than the receipts"
        )
    return whole("version", subject, found, "its tags say what the receipts say")


def stored_files(record: RoundRecord, receipts: Receipts) -> list[Finding]:
    """Return whether the model and the evidence kept in MLflow are, file by file, what the stages wrote."""
    wrote = outputs(receipts)
    found: list[Finding] = []
    for name, content in record.evidence.items():
        folder = "evaluated" if name.startswith(PREDICTIONS) else EVIDENCE.get(name, "?")
        path = path_in(record.name, f"{folder}/{name}")
        found += compare(
            "mlflow files",
            f"{record.name}: {name if name.startswith(PREDICTIONS) else f'evidence/{name}'}",
            wrote.get(path),
            sha256(content),
            "not what the stage wrote",
        )
    files = record.model_files.get("files", {})
    here = {
        name.removeprefix("artifacts/"): one["sha256"] for name, one in files.items() if name.startswith("artifacts/")
    }
    folder = path_in(record.name, "trained/")
    expected = {path.removeprefix(folder): one for path, one in wrote.items() if path.startswith(f"{folder}model/")}
    if path_in(record.name, ONNX) in wrote:
        expected["model.onnx"] = wrote[path_in(record.name, ONNX)]
    for name in sorted({*here, *expected}) if files else ():
        sentence = "the model that MLflow serves is not the one that was trained and judged"
        subject = f"{record.name}: model {record.model_id}: artifacts/{name}"
        found += compare(
            "mlflow files", subject, expected.get(name, "no such file"), here.get(name, "no such file"), sentence
        )
    if not files:
        found.append(unknown("mlflow files", f"{record.name}: model {record.model_id}", "its files cannot be found"))
    elif record.model_files_sha256 is not None:
        subject = f"{record.name}: model {record.model_id}"
        sentence = "a file of the served model, perhaps its code, was changed since it was stored"
        found += compare("mlflow files", subject, record.model_files_sha256, record.model_files["sha256"], sentence)
    return whole("mlflow files", record.name, found, "the stored model and evidence are what the stages wrote")


def params(record: RoundRecord, receipts: Receipts) -> list[Finding]:
    """Return whether the params MLflow shows of a round are those its training stage read."""
    stage = TEACHER if record.name == TEACHER else f"distill@{record.name}"
    values = receipts[stage]["params"]
    chosen: dict[str, Any] = (
        {"teacher": values["teacher"]}
        if record.name == TEACHER
        else {"prune": values["prune"], "distill": values["distill"], "rounds": values["rounds"][record.name]}
    )
    expected = {"seed": str(values["seed"]), **flatten_params("", chosen)}
    found: list[Finding] = []
    for key in sorted({*expected, *record.params}):
        sentence = "MLflow shows another value than the stage read"
        found += compare("mlflow params", f"{record.name}: {key}", expected.get(key), record.params.get(key), sentence)
    return whole("mlflow params", record.name, found, f"{len(expected)} params are those of the receipt")


def metrics(record: RoundRecord) -> list[Finding]:
    """Return whether the final numbers MLflow shows are those of the stored evidence, each recorded once."""
    try:
        expected = flatten_quality(_json(record, "quality.json")) if "quality.json" in record.evidence else {}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [failed("mlflow metrics", f"{record.name}: quality.json", "a report", repr(error), "cannot be read")]
    expected |= flatten_numbers("cost", _json(record, "cost.json"))
    expected |= flatten_numbers("parity", _json(record, "parity.json"))
    expected |= flatten_search(_json(record, "search.json"))
    found: list[Finding] = []
    for key, value in expected.items():
        shown = record.metrics.get(key, [])
        sentence = "MLflow shows another number than the evidence, or a second one added later"
        found += compare("mlflow metrics", f"{record.name}: {key}", [(value, 0)], shown, sentence)
    return whole("mlflow metrics", record.name, found, f"{len(expected)} numbers are those of the evidence")


def aliases(dossier: Dossier, receipts: Receipts, chosen: str | None) -> list[Finding]:
    """Return whether the aliases point where recorded choices put them, and only at versions that passed their gates.

    `chosen`: the round that the selection in force has chosen, None when this run is not the latest one.
    """
    if not dossier.in_git or dossier.log_fault is not None:
        return []  # the checks of the log say so
    found: list[Finding] = []
    known = {tags.get("model_sha256"): number for number, tags in dossier.versions.items()}
    expected = dict(dossier.decided)
    if chosen is not None:
        expected["challenger"] = known.get(outputs(receipts).get(path_in(chosen, WEIGHTS)))
    for alias, number in dossier.aliases.items():
        tags = dossier.versions.get(number, {})
        if tags.get("verdict") != "pass":
            found.append(
                failed("alias", alias, "a version whose gates pass", f"version {number}", "it may not be promoted")
            )
        elif alias in expected and expected[alias] != number:
            sentence = "the alias was moved, and no recorded decision did it"
            wanted = expected[alias] and f"version {expected[alias]}"
            found.append(failed("alias", alias, wanted or "no alias", f"version {number}", sentence))
        else:
            found.append(passed("alias", alias, f"points at version {number}, as recorded"))
    for alias, wanted in expected.items():
        if wanted is not None and alias not in dossier.aliases:
            found.append(failed("alias", alias, f"version {wanted}", "no alias", "the alias was taken away"))
    return found


def inverse(dossier: Dossier, receipts: Receipts, known: Mapping[str, str | None]) -> list[Finding]:
    """Return versions without receipts and judged rounds without a version.

    `known`: number of each version -> sha256 of the weights that the receipts of its own run say it has, None without.
    """
    found: list[Finding] = []
    for number, tags in dossier.versions.items():
        subject = f"{dossier.name}/{number}"
        if not tags:
            found.append(
                failed("inverse scan", subject, "a receipt", "none", "registered by hand: nothing is known of it")
            )
        elif known[number] is None:
            found.append(failed("inverse scan", subject, "a receipt", "none", "its run has no receipt of the training"))
        else:
            sentence = "the receipts of its run tell of other weights"
            found += compare("inverse scan", subject, known[number], tags.get("model_sha256"), sentence)
    registered = {tags.get("model_sha256") for tags in dossier.versions.values()}
    for stage in receipts:
        if stage.startswith("gate@"):
            name = stage.partition("@")[2]
            made = outputs(receipts).get(path_in(name, WEIGHTS))
            if made not in registered:
                found.append(
                    failed("inverse scan", stage, "a registered version", "none", f"{name} was judged and is missing")
                )
    return whole(
        "inverse scan", dossier.name, found, f"{len(dossier.versions)} versions have receipts, and the reverse"
    )


def run_record(dossier: Dossier, records: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return whether MLflow says of the run and of the versions what the records of runs in Git say.

    `records` are those of this model, oldest first; a clone has none until it fetches them.
    """
    mine = [one for one in records if one["inputs_digest"] == dossier.inputs_digest]
    if not records:
        return []
    if not mine:
        return [unknown("run record", dossier.run_id, "Git has no record of this run; `compactlm run` makes one")]
    ref = mine[-1]["ref"]
    sentence = "MLflow has other receipts of this run than were recorded in Git; if a run was cut short, run it again"
    found = compare("run record", ref, mine[-1]["receipts_root"], dossier.receipts_root, sentence)
    for sha256, number in records[-1]["versions"].items():
        here = dossier.versions.get(number, {}).get("model_sha256", "no such version")
        sentence = "the version has other weights than were recorded in Git"
        found += compare("run record", f"{dossier.name}/{number}", sha256, here, sentence)
    return whole("run record", ref, found, "receipts and versions are those recorded in Git")


def _json(record: RoundRecord, name: str) -> dict[str, Any]:
    try:
        content = json.loads(record.evidence.get(name, b"{}"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
