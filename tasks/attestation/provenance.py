"""How a model came to be, as an in-toto statement with the SLSA provenance predicate, version 1.

Source: in-toto attestation framework v1 (Statement, ResourceDescriptor); slsa.dev/provenance/v1.
"""

from __future__ import annotations

from typing import Any, Final

from tasks.attestation.facts import URN, Facts, began, ended, sources
from tasks.lineage.chain import LOCK, Receipt, sha256_of

BUILD_TYPE: Final = f"{URN}:build:compress:v1"
BUILDER: Final = f"{URN}:builder:self-run"  # whoever runs the pipeline on a machine of their own: SLSA build level 1
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def statement(facts: Facts) -> dict[str, Any]:
    """Return the statement: its subjects are the model's files, its predicate says from what and how they were made."""
    subjects = [{"name": name, "digest": {"sha256": file["sha256"]}} for name, file in sorted(facts.files.items())]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": _definition(facts), "runDetails": _details(facts)},
    }


def _definition(facts: Facts) -> dict[str, Any]:
    environment, receipts = facts.judged["environment"], [receipt for _, receipt in facts.behind()]
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "command": "compactlm run",
            "commit": facts.commit,
            "round": facts.round,
            "params": dict(facts.params),
        },
        "internalParameters": {
            **{key: environment[key] for key in ("python", "platform", "packages_sha256")},
            "devices": sorted({str(r["device"]) for r in receipts if r.get("device")}),
            "precisions": sorted({str(r["precision"]) for r in receipts if r.get("precision")}),
            "threads": sorted({threads for r in receipts if (threads := r.get("threads"))}),
        },
        "resolvedDependencies": [*_sources(facts), *_code(facts), *_locks(facts)],
    }


def _sources(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{source.role}/{name}",
            "digest": {"sha256": sha256},
            "annotations": {"source": source.text},
            **({"uri": source.purl} if source.purl else {}),
        }
        for source in sources(facts)
        for name, sha256 in sorted(source.files.items())
    ]


def _code(facts: Facts) -> list[dict[str, Any]]:
    """Return each state of the code that a stage ran: a commit, and the digest of the difference from it."""
    states = {(r["git"]["commit"], r["git"]["diff_sha256"]) for _, r in facts.behind() if r["git"]["commit"]}
    return [
        {
            "name": "code",
            "digest": {"gitCommit": commit},
            **({"uri": f"git+{facts.repository}@{commit}"} if facts.repository else {}),
            **({"annotations": {"diff_sha256": diff}} if diff else {}),
        }
        for commit, diff in sorted(states, key=str)
    ]


def _locks(facts: Facts) -> list[dict[str, Any]]:
    environments = [receipt["environment"] for _, receipt in facts.behind()]
    locks = sorted({str(sha256) for environment in environments if (sha256 := environment.get("lock_sha256"))})
    entries = [{"name": "requirements.lock", "digest": {"sha256": sha256}} for sha256 in locks]
    pins = facts.receipts["fetch"]["inputs"].get(LOCK)
    return [*entries, {"name": LOCK, "digest": {"sha256": pins["sha256"]}}] if pins else entries


def _details(facts: Facts) -> dict[str, Any]:
    version = facts.judged["environment"].get("packages", {}).get("compactlm")
    first, last = facts.span()
    return {
        "builder": {"id": BUILDER, **({"version": {"compactlm": version}} if version else {})},
        "metadata": {"invocationId": f"{URN}:receipts:{facts.root}", "startedOn": first, "finishedOn": last},
        "byproducts": [_receipt(facts, stage, receipt) for stage, receipt in facts.behind()],
    }


def _receipt(facts: Facts, stage: str, receipt: Receipt) -> dict[str, Any]:
    return {
        "name": f"receipts/{stage}.json",
        "digest": {"sha256": sha256_of(facts.recorded[stage])},
        "mediaType": "application/json",
        "annotations": {"stage": stage, "startedOn": began(receipt), "finishedOn": ended(receipt)},
    }
