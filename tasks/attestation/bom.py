"""What a model consists of and descends from, as a CycloneDX 1.6 bill of materials with a model card.

Source: CycloneDX 1.6 JSON schema (bom-1.6.schema.json). Written by hand: no library has classes for model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.artifacts import WEIGHTS, every_set
from tasks.attestation.facts import Facts, Source, ancestry, data_sets, ended, packages, sources, stable_uuid
from tasks.attestation.limits import limits, tradeoffs

MODEL: Final = "model"
MODEL_TYPE: Final = "machine-learning-model"


def bom(facts: Facts) -> dict[str, Any]:
    """Return the bill of materials: the model with card and pedigree, its files, the data, the Python environment."""
    components = [_outside(source) for source in sources(facts)]
    components += [_set(facts, name, sha256) for name, sha256 in sorted(data_sets(facts).items())]
    components += [_library(name, version) for name, version in packages(facts)]
    refs = [str(component["bom-ref"]) for component in components]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{stable_uuid('bom', facts.name, facts.version, facts.root)}",
        "version": 1,
        "metadata": {
            "timestamp": ended(facts.judged),
            "tools": {"components": [{"type": "application", "name": "compactlm"}]},
            "component": _model(facts),
        },
        "components": components,
        "dependencies": [{"ref": MODEL, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


def _model(facts: Facts) -> dict[str, Any]:
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(file["sha256"])}
        for name, file in sorted(facts.files.items())
    ]
    return {
        "type": MODEL_TYPE,
        "bom-ref": MODEL,
        "name": facts.name,
        "version": str(facts.version),
        "description": f"Round {facts.round}, pruned and distilled from a teacher; {facts.verdict['sentence']}",
        "hashes": _hashes(facts.files[WEIGHTS]["sha256"]),
        "components": files,
        "pedigree": {"ancestors": _ancestors(facts)},
        "modelCard": _card(facts),
        "properties": _properties(facts),
        **({"licenses": [{"expression": facts.license}]} if facts.license else {}),
    }


def _properties(facts: Facts) -> list[dict[str, str]]:
    values = {
        "verdict": facts.verdict["verdict"],
        "receipts_root": facts.root,
        "commit": facts.commit,
        "params_total": facts.cost["params_total"],
        "flops_per_example": facts.cost["flops_per_example"],
        "audit_checks_passed": facts.num_passed,
        "audit_checks_unknown": len(facts.undecided),
    }
    return [{"name": f"compactlm:{key}", "value": str(value)} for key, value in values.items() if value is not None]


def _ancestors(facts: Facts) -> list[dict[str, Any]]:
    """Return the rounds before, the trained teacher, and the base model it was trained from."""
    models: list[dict[str, Any]] = [
        {
            "type": MODEL_TYPE,
            "bom-ref": f"ancestor:{model.name}",
            "name": f"{facts.name} {model.name}",
            "hashes": _hashes(model.sha256),
            "description": f"made by the stage {model.stage}",
        }
        for model in ancestry(facts)
    ]
    base = next(source for source in sources(facts) if source.role == "teacher")
    entry: dict[str, Any] = {"type": MODEL_TYPE, "bom-ref": "ancestor:base", "name": base.text}
    if WEIGHTS in base.files:
        entry["hashes"] = _hashes(base.files[WEIGHTS])
    return [*models, entry | _purl(base)]


def _card(facts: Facts) -> dict[str, Any]:
    classes, things = ", ".join(facts.labels), "pairs of texts" if facts.of_pairs else "texts"
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-classification",
            "architectureFamily": str(facts.config.get("model_type", "")),
            "modelArchitecture": ", ".join(facts.config.get("architectures") or []),
            "datasets": [{"ref": f"set:{name}"} for name in sorted(data_sets(facts))],
            "inputs": [{"format": "pair of texts" if facts.of_pairs else "text"}],
            "outputs": [{"format": f"one score for each of: {classes}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(facts)},
        "considerations": {
            "useCases": [f"Sorting {things} like those it was measured on into {classes}."],
            "technicalLimitations": limits(facts),
            "performanceTradeoffs": tradeoffs(facts),
        },
    }


def _metrics(facts: Facts) -> list[dict[str, Any]]:
    groups = {
        f"{name}/{group}": values
        for name, content in sorted(facts.quality["sets"].items())
        for kind, prefix in (("slices", ""), ("variants", "format:"))
        for group, values in ((f"{prefix}{key}", values) for key, values in content.get(kind, {}).items())
    }
    return [
        _metric(metric, group, value)
        for group, values in groups.items()
        for metric, value in sorted(values.items())
        if isinstance(value, Mapping)
    ]


def _metric(metric: str, slice_: str, value: Mapping[str, float]) -> dict[str, Any]:
    bounds = {"lowerBound": f"{value['low']:.6g}", "upperBound": f"{value['high']:.6g}"}
    return {"type": metric, "value": f"{value['value']:.6g}", "slice": slice_, "confidenceInterval": bounds}


def _outside(source: Source) -> dict[str, Any]:
    files = [{"type": "file", "name": name, "hashes": _hashes(sha256)} for name, sha256 in sorted(source.files.items())]
    kind, ref = MODEL_TYPE if source.role == "teacher" else "data", f"source:{source.role}"
    return {"type": kind, "bom-ref": ref, "name": source.text, "components": files, **_purl(source)}


def _purl(source: Source) -> dict[str, str]:
    return {"purl": source.purl} if source.purl else {}


def _set(facts: Facts, name: str, sha256: str) -> dict[str, Any]:
    purpose = "measured" if name in every_set(facts.quality) else "trained or calibrated"
    description = {"type": "dataset", "name": name, "description": f"rows the model was {purpose} on"}
    hashes = _hashes(sha256)
    return {"type": "data", "bom-ref": f"set:{name}", "name": f"{name} set", "hashes": hashes, "data": [description]}


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name.replace('_', '-')}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
