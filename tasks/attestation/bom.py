"""What a model consists of and descends from, as a CycloneDX 1.6 bill of materials with a model card.

Source: CycloneDX 1.6 JSON schema (bom-1.6.schema.json). Written by hand: no library has classes for model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.attestation.facts import Facts, Source, ancestry, data_sets, ended, packages, sources, stable_uuid
from tasks.attestation.limits import limits, tradeoffs

MODEL: Final = "model"
WEIGHTS: Final = "model.safetensors"


def bom(facts: Facts) -> dict[str, Any]:
    """Return the bill of materials: the model with card and pedigree, its files, the data, the Python environment."""
    outside = [_outside(source) for source in sources(facts)]
    sets = [_set(facts, name, sha256) for name, sha256 in sorted(data_sets(facts).items())]
    libraries = [_library(name, version) for name, version in packages(facts)]
    refs = [str(one["bom-ref"]) for one in (*outside, *sets, *libraries)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{stable_uuid('bom', facts.name, facts.version, facts.root)}",
        "version": 1,
        "metadata": {
            "timestamp": ended(facts.receipts[f"gate@{facts.round}"]),
            "tools": {"components": [{"type": "application", "name": "compactlm"}]},
            "component": _model(facts),
        },
        "components": [*outside, *sets, *libraries],
        "dependencies": [{"ref": MODEL, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


def _model(facts: Facts) -> dict[str, Any]:
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(one["sha256"])}
        for name, one in sorted(facts.files.items())
    ]
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": facts.name,
        "version": str(facts.version),
        "description": f"Round {facts.round}, pruned and distilled from a teacher; {facts.verdict['sentence']}",
        "hashes": _hashes(facts.files[WEIGHTS]["sha256"]),
        "components": files,
        "pedigree": {"ancestors": _ancestors(facts)},
        "modelCard": _card(facts),
        "properties": _properties(facts),
    }
    return found | ({"licenses": [{"expression": facts.license}]} if facts.license else {})


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
    found: list[dict[str, Any]] = [
        {
            "type": "machine-learning-model",
            "bom-ref": f"ancestor:{one.name}",
            "name": f"{facts.name} {one.name}",
            "hashes": _hashes(one.sha256),
            "description": f"made by the stage {one.stage}",
        }
        for one in ancestry(facts)
    ]
    base = next(source for source in sources(facts) if source.role == "teacher")
    entry: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": "ancestor:base", "name": base.text}
    if WEIGHTS in base.files:
        entry["hashes"] = _hashes(base.files[WEIGHTS])
    return [*found, {**entry, "purl": base.purl} if base.purl else entry]


def _card(facts: Facts) -> dict[str, Any]:
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-classification",
            "architectureFamily": str(facts.config.get("model_type", "")),
            "modelArchitecture": ", ".join(facts.config.get("architectures") or []),
            "datasets": [{"ref": f"set:{name}"} for name in sorted(data_sets(facts))],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": f"one score for each of: {', '.join(facts.labels)}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(facts)},
        "considerations": {
            "useCases": [f"Sorting texts like those it was measured on into {', '.join(facts.labels)}."],
            "technicalLimitations": limits(facts),
            "performanceTradeoffs": tradeoffs(facts),
        },
    }


def _metrics(facts: Facts) -> list[dict[str, Any]]:
    found = []
    for name, content in sorted(facts.quality["sets"].items()):
        groups = {
            **content["slices"],
            **{f"format:{one}": values for one, values in content.get("variants", {}).items()},
        }
        for slice_, values in groups.items():
            for metric, value in sorted(values.items()):
                if isinstance(value, Mapping):
                    found.append(_metric(metric, f"{name}/{slice_}", value))
    return found


def _metric(metric: str, slice_: str, value: Mapping[str, float]) -> dict[str, Any]:
    bounds = {"lowerBound": f"{value['low']:.6g}", "upperBound": f"{value['high']:.6g}"}
    return {"type": metric, "value": f"{value['value']:.6g}", "slice": slice_, "confidenceInterval": bounds}


def _outside(source: Source) -> dict[str, Any]:
    files = [{"type": "file", "name": name, "hashes": _hashes(sha256)} for name, sha256 in sorted(source.files.items())]
    kind = "data" if source.role == "data" else "machine-learning-model"
    entry: dict[str, Any] = {"type": kind, "bom-ref": f"source:{source.role}", "name": source.text, "components": files}
    return entry | ({"purl": source.purl} if source.purl else {})


def _set(facts: Facts, name: str, sha256: str) -> dict[str, Any]:
    measured = name in facts.quality["sets"]
    what = "rows the model was measured on" if measured else "rows the model was trained or calibrated on"
    return {
        "type": "data",
        "bom-ref": f"set:{name}",
        "name": f"{name} set",
        "hashes": _hashes(sha256),
        "data": [{"type": "dataset", "name": name, "description": what}],
    }


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name.replace('_', '-')}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
