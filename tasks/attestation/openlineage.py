"""What ran, as OpenLineage events: one run a stage, all below the run of the whole pipeline.

Source: OpenLineage specification 2-0-2 and its facets ParentRun, SourceCodeLocation, JobType and DatasetVersion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.attestation.facts import URN, Facts, began, ended, sources, stable_uuid
from tasks.files import listing_sha256
from tasks.lineage.chain import Receipt, files_of, sha256_of
from tasks.params.base import CAUSAL_LM

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
    pipeline = {"run": {"runId": _run_id(facts)}, "job": _job(facts, facts.name, "PIPELINE", facts.commit)}
    of_stages = []
    for stage, receipt in facts.behind():
        content = _stage(facts, stage, receipt)
        of_stages.append(_event("START", began(receipt), {**content, "outputs": []}))
        of_stages.append(_event("COMPLETE", ended(receipt), content))
    of_stages.sort(key=lambda event: str(event["eventTime"]))  # stable: a start stays before its end
    first, last = facts.span()
    return [_event("START", first, pipeline), *of_stages, _event("COMPLETE", last, pipeline)]


def _run_id(facts: Facts) -> str:
    return stable_uuid("run", facts.root)


def _event(kind: str, at: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"eventType": kind, "eventTime": at, "producer": URN, "schemaURL": SCHEMA, **content}


def _stage(facts: Facts, stage: str, receipt: Receipt) -> dict[str, Any]:
    parent = {"run": {"runId": _run_id(facts)}, "job": {"namespace": NAMESPACE, "name": facts.name}}
    inputs = [_dataset(path, sha256) for path, sha256 in sorted(_read(facts, receipt).items())]
    if stage == "fetch":
        inputs += [_dataset(source.text, listing_sha256(source.files)) for source in sources(facts)]
    run_id, commit = stable_uuid("receipt", sha256_of(facts.recorded[stage])), receipt["git"]["commit"]
    return {
        "run": {"runId": run_id, "facets": {"parent": _facet("ParentRunFacet", parent)}},
        "job": _job(facts, f"{facts.name}.{stage}", "STAGE", commit, source_file(receipt)),
        "inputs": inputs,
        "outputs": [_dataset(path, entry["sha256"]) for path, entry in sorted(receipt["outputs"].items())],
    }


def source_file(receipt: Receipt) -> str:
    """Return the file in which a stage is written, as the receipt's own code names it.

    In earlier versions that was `tasks/<verb>.py`, and `tasks/causal/<verb>.py` for language models.
    """
    verb, of_language_model = receipt["command"][0], receipt["params"].get("task") == CAUSAL_LM
    folders = ["tasks/stages", *(["tasks/causal"] if of_language_model else []), "tasks"]
    places = [f"{folder}/{verb}.py" for folder in folders]
    return next((place for place in places if place in receipt.get("code", {})), places[-1])


def _read(facts: Facts, receipt: Receipt) -> dict[str, str]:
    """Return what a stage read under the names that its writers gave it, so that runs connect: name -> sha256."""
    outputs = {
        (f"{out}/{name}" if name else out): (out, entry["sha256"])
        for other in facts.receipts.values()
        for out, entry in other["outputs"].items()
        for name in entry.get("files", {"": None})
    }
    return dict(outputs.get(path, (path, file["sha256"])) for path, file in files_of(receipt, "inputs").items())


def _job(facts: Facts, name: str, kind: str, commit: str | None, path: str | None = None) -> dict[str, Any]:
    job = {"processingType": "BATCH", "integration": "COMPACTLM", "jobType": kind}
    facets = {"jobType": _facet("JobTypeJobFacet", job)}
    if commit:
        code = {"type": "git", "url": facts.repository or f"{URN}:git:{commit}", "version": commit}
        code |= {"repoUrl": facts.repository} if facts.repository else {}
        code |= {"path": path} if path else {}
        facets["sourceCodeLocation"] = _facet("SourceCodeLocationJobFacet", code)
    return {"namespace": NAMESPACE, "name": name, "facets": facets}


def _dataset(name: str, sha256: str) -> dict[str, Any]:
    version = _facet("DatasetVersionDatasetFacet", {"datasetVersion": f"sha256:{sha256}"})
    return {"namespace": NAMESPACE, "name": name, "facets": {"version": version}}


def _facet(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    url = f"https://openlineage.io/spec/facets/{FACETS[name]}/{name}.json#/$defs/{name}"
    return {"_producer": URN, "_schemaURL": url, **content}
