"""How a model came to be, as an in-toto statement with the SLSA provenance predicate, version 1.

Source: in-toto attestation framework v1 (Statement, ResourceDescriptor); slsa.dev/provenance/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.attestation.facts import URN, Facts, began, digest_of, ended, sources

BUILD_TYPE: Final = f"{URN}:build:compress:v1"
BUILDER: Final = f"{URN}:builder:self-run"  # whoever runs the pipeline on a machine of their own: SLSA build level 1
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def statement(facts: Facts) -> dict[str, Any]:
    """Return the statement: its subjects are the model's files, its predicate says from what and how they were made."""
    subjects = [{"name": name, "digest": {"sha256": one["sha256"]}} for name, one in sorted(facts.files.items())]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": _definition(facts), "runDetails": _details(facts)},
    }


def _definition(facts: Facts) -> dict[str, Any]:
    judged = facts.receipts[f"gate@{facts.round}"]
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "command": "compactlm run",
            "commit": facts.commit,
            "round": facts.round,
            "params": dict(facts.params),
        },
        "internalParameters": {
            "python": judged["environment"]["python"],
            "platform": judged["environment"]["platform"],
            "packages_sha256": judged["environment"]["packages_sha256"],
            "devices": sorted({str(r["device"]) for _, r in facts.behind() if r.get("device")}),
            "precisions": sorted({str(r["precision"]) for _, r in facts.behind() if r.get("precision")}),
            "threads": sorted({int(r["threads"]) for _, r in facts.behind() if r.get("threads")}),
        },
        "resolvedDependencies": [*_sources(facts), *_code(facts), *_locks(facts)],
    }


def _sources(facts: Facts) -> list[dict[str, Any]]:
    found = []
    for source in sources(facts):
        for name, sha256 in sorted(source.files.items()):
            entry = {
                "name": f"{source.role}/{name}",
                "digest": {"sha256": sha256},
                "annotations": {"source": source.text},
            }
            found.append({**entry, "uri": source.purl} if source.purl else entry)
    return found


def _code(facts: Facts) -> list[dict[str, Any]]:
    """Return each state of the code that a stage ran: a commit, and the digest of the difference from it."""
    states = {(r["git"]["commit"], r["git"]["diff_sha256"]) for _, r in facts.behind() if r["git"]["commit"]}
    found = []
    for commit, diff in sorted(states, key=str):
        entry: dict[str, Any] = {"name": "code", "digest": {"gitCommit": commit}}
        if facts.repository:
            entry["uri"] = f"git+{facts.repository}@{commit}"
        if diff:
            entry["annotations"] = {"diff_sha256": diff}
        found.append(entry)
    return found


def _locks(facts: Facts) -> list[dict[str, Any]]:
    locks = {str(r["environment"]["lock_sha256"]) for _, r in facts.behind() if r["environment"].get("lock_sha256")}
    found = [{"name": "requirements.lock", "digest": {"sha256": one}} for one in sorted(locks)]
    pins = facts.receipts["fetch"]["inputs"].get("sources.lock")
    return [*found, {"name": "sources.lock", "digest": {"sha256": pins["sha256"]}}] if pins else found


def _details(facts: Facts) -> dict[str, Any]:
    builder: dict[str, Any] = {"id": BUILDER}
    version = facts.receipts[f"gate@{facts.round}"]["environment"].get("packages", {}).get("compactlm")
    if version:
        builder["version"] = {"compactlm": version}
    return {
        "builder": builder,
        "metadata": {
            "invocationId": f"{URN}:receipts:{facts.root}",
            "startedOn": min(began(receipt) for _, receipt in facts.behind()),
            "finishedOn": max(ended(receipt) for _, receipt in facts.behind()),
        },
        "byproducts": [_receipt(facts, stage, receipt) for stage, receipt in facts.behind()],
    }


def _receipt(facts: Facts, stage: str, receipt: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"receipts/{stage}.json",
        "digest": {"sha256": digest_of(facts.recorded[stage])},
        "mediaType": "application/json",
        "annotations": {"stage": stage, "startedOn": began(receipt), "finishedOn": ended(receipt)},
    }
