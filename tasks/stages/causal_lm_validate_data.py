"""Checks the documents with Great Expectations before anything is trained on them.

deps: fetched/data; params: data, validate_data; outs: summary.json and data_docs/; refuses with DataError.
"""

from __future__ import annotations

import shutil
from typing import Any

from tasks.data.checks import document_checks, document_frame, document_set_checks, document_set_frame
from tasks.data.documents import read_documents
from tasks.data.sources import MAIN
from tasks.files import digest
from tasks.params.causal_lm import CausalLMParams
from tasks.running.stage import InPath, OutPath
from tasks.stages.causal_lm_prepare import column_names, document_sets
from tasks.stages.validate_data import report


def run(params: CausalLMParams, *, data: InPath, out: OutPath) -> dict[str, Any]:
    """Return the number of expectations and of documents a set; raise DataError listing each failed expectation."""
    shutil.rmtree(out, ignore_errors=True)
    documents = document_frame(read_documents(data / MAIN, column_names(params.data.columns), "data"))
    checks = document_checks(documents, params.validate_data.model_dump())
    suites = {"1-documents": (documents, checks)}
    described: dict[str, Any] = {}
    if not any(check.problems for check in checks):
        sets = document_sets(params.data, data)
        members = document_set_frame(sets)
        suites["2-sets"] = (members, document_set_checks(members))
        described = {
            name: {"rows": len(rows), "classes": {}, "sources": sorted(rows["source"].unique().tolist())}
            for name, rows in sets.items()
        }
    facts = {"file": params.data.source, "sha256": digest(data)["sha256"], "sets": described}
    expectations = report(suites, facts, [], out)
    return {"expectations": expectations, "sets": {name: one["rows"] for name, one in described.items()}}
