"""What ran, as OpenLineage events: one run a stage, all below the run of the whole pipeline.

Source: OpenLineage specification 2-0-2 and its facets ParentRun, SourceCodeLocation, JobType and DatasetVersion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.attestation.facts import URN, Facts, Source, began, digest_of, ended, sources, stable_uuid
from tasks.files import listing_sha256
from tasks.lineage.chain import files_of

SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
NAMESPACE: Final = "compactlm"
FACETS: Final = {
    "DatasetVersionDatasetFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "ParentRunFacet": "1-2-0",
    "SourceCodeLocationJobFacet": "1-1-0",
}


def events(facts: Facts) -> list[dict[str, Any]]:
    """Return START and COMPLETE of the pipeline and of each stage behind the model, in order of their times."""
    receipts = facts.behind()
    whole = {"run": {"runId": _whole(facts)}, "job": _job(facts, facts.name, "PIPELINE")}
    found = []
    for stage, receipt in receipts:
        found.append(_event("START", began(receipt), _stage(facts, stage, receipt, outputs=False)))
        found.append(_event("COMPLETE", ended(receipt), _stage(facts, stage, receipt, outputs=True)))
    found.sort(key=lambda event: str(event["eventTime"]))  # stable: a start stays before its end
    first = _event("START", min(began(receipt) for _, receipt in receipts), whole)
    return [first, *found, _event("COMPLETE", max(ended(receipt) for _, receipt in receipts), whole)]


def _whole(facts: Facts) -> str:
    return stable_uuid("run", facts.root)


def _event(kind: str, at: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"eventType": kind, "eventTime": at, "producer": URN, "schemaURL": SCHEMA, **content}


def _stage(facts: Facts, stage: str, receipt: Mapping[str, Any], *, outputs: bool) -> dict[str, Any]:
    parent = {"run": {"runId": _whole(facts)}, "job": {"namespace": NAMESPACE, "name": facts.name}}
    inputs = [_dataset(path, sha256) for path, sha256 in sorted(_read(facts, receipt).items())]
    if stage == "fetch":
        inputs += [_outside(source) for source in sources(facts)]
    return {
        "run": {
            "runId": stable_uuid("receipt", digest_of(facts.recorded[stage])),
            "facets": {"parent": _facet("ParentRunFacet", parent)},
        },
        "job": _job(facts, f"{facts.name}.{stage}", "STAGE", f"tasks/{receipt['command'][0]}.py", receipt),
        "inputs": inputs,
        "outputs": [_dataset(path, one["sha256"]) for path, one in sorted(receipt["outputs"].items())]
        if outputs
        else [],
    }


def _read(facts: Facts, receipt: Mapping[str, Any]) -> dict[str, str]:
    """Return what a stage read under the names that its writers gave it, so that runs connect: name -> sha256."""
    wrote = {
        (f"{out}/{name}" if name else out): (out, str(entry["sha256"]))
        for other in facts.receipts.values()
        for out, entry in other["outputs"].items()
        for name in entry.get("files", {"": None})
    }
    inputs = files_of(receipt, "inputs")
    return dict(wrote.get(path, (path, str(one["sha256"]))) for path, one in inputs.items())


def _job(
    facts: Facts, name: str, kind: str, path: str | None = None, receipt: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    job = {"processingType": "BATCH", "integration": "COMPACTLM", "jobType": kind}
    facets = {"jobType": _facet("JobTypeJobFacet", job)}
    commit = receipt["git"]["commit"] if receipt else facts.commit
    if commit:
        code = {"type": "git", "url": facts.repository or f"{URN}:git:{commit}", "version": commit}
        code |= {"repoUrl": facts.repository} if facts.repository else {}
        code |= {"path": path} if path else {}
        facets["sourceCodeLocation"] = _facet("SourceCodeLocationJobFacet", code)
    return {"namespace": NAMESPACE, "name": name, "facets": facets}


def _dataset(name: str, sha256: str) -> dict[str, Any]:
    version = _facet("DatasetVersionDatasetFacet", {"datasetVersion": f"sha256:{sha256}"})
    return {"namespace": NAMESPACE, "name": name, "facets": {"version": version}}


def _outside(source: Source) -> dict[str, Any]:
    return _dataset(source.text, listing_sha256(source.files))


def _facet(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    url = f"https://openlineage.io/spec/facets/{FACETS[name]}/{name}.json#/$defs/{name}"
    return {"_producer": URN, "_schemaURL": url, **content}
