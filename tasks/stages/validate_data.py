"""Checks the data with Great Expectations before anything is trained on it.

deps: fetched/data (one file); params: data, validate_data; outs: summary.json and data_docs/; refuses with DataError.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tasks.data import checks
from tasks.data.read import read_table, to_rows
from tasks.data.sources import data_file
from tasks.data.splits import make_sets
from tasks.errors import DataError
from tasks.files import file_sha256, write_json
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath

Suites = Mapping[str, tuple[pd.DataFrame, list[checks.Expectation]]]  # by name: what is looked at, and the checks on it
_OBSERVED: Final = ("observed_value", "element_count", "unexpected_count")


def run(params: ClassificationParams, *, data: InPath, out: OutPath) -> dict[str, Any]:
    """Return the number of rows, of expectations and of rows a set; raise DataError listing each failed expectation."""
    shutil.rmtree(out, ignore_errors=True)
    file = data_file(data)
    suites, sets, problems = _inspect(file.name, read_table(file), params)
    described = {name: _describe(rows, params.data.labels) for name, rows in sets.items()}
    facts = {"file": file.name, "sha256": file_sha256(file), "sets": described}
    expectations = report(suites, facts, problems, out)
    return {"expectations": expectations, "sets": {name: len(rows) for name, rows in sets.items()}}


def report(suites: Suites, facts: Mapping[str, Any], problems: Sequence[str], out: Path) -> int:
    """Write data docs and summary.json, `facts` among it; return the number of expectations, or raise DataError."""
    results, problems = _expect(suites, out / "data_docs"), list(problems)
    for result in results:
        if not result["success"]:
            problems += result.pop("problems") or [f"{facts['file']}: {result['name']}: {result['detail']}"]
    summary = {
        **facts,
        "success": not problems,
        "expectations": [{k: v for k, v in result.items() if k not in ("problems", "detail")} for result in results],
        "problems": problems,
    }
    write_json(out / "summary.json", summary)
    if problems:
        count = "1 fault" if len(problems) == 1 else f"{len(problems)} faults"
        docs = f"Every check with its numbers: {out / 'data_docs' / 'index.html'}"
        raise DataError("\n".join([f"{count} in the data; nothing was trained", *problems, docs]))
    return len(results)


def _inspect(
    file: str, table: pd.DataFrame, params: ClassificationParams
) -> tuple[dict[str, tuple[pd.DataFrame, list[checks.Expectation]]], dict[str, pd.DataFrame], list[str]]:
    """Return suites (frame, checks) by name, the sets, and problems met while cutting them.

    Later suites need the earlier ones to hold: without the columns there are no rows to look at.
    """
    data, limits = params.data.model_dump(), params.validate_data.model_dump()
    suites = {"1-file": (table, checks.file_checks(file, table, data["columns"]))}
    if _failed(suites):
        return suites, {}, []
    frame = checks.row_frame(table, data)
    suites["2-rows"] = (frame, checks.row_checks(file, table, frame, data, limits))
    if any(check.problems for check in suites["2-rows"][1] if check.name in ("labels", "empty_texts")):
        return suites, {}, []
    raw = to_rows(table, data)
    classes = checks.class_frame(raw, data)
    suites["3-classes"] = (classes, checks.class_checks(file, classes, limits))
    if data["columns"]["split"]:
        suites["4-splits"] = (checks.split_frame(raw, data), checks.split_checks(file, raw, data))
    if _failed(suites):
        return suites, {}, []
    try:
        sets = make_sets(raw, data)
    except DataError as error:
        return suites, {}, [f"{file}: {error}"]
    members = checks.set_frame(sets, data["near_duplicate_similarity"])
    suites["5-sets"] = (members, checks.set_checks(file, members, data["near_duplicate_similarity"]))
    return suites, sets, []


def _failed(suites: Suites) -> bool:
    return any(check.problems for _, listed in suites.values() for check in listed)


def _expect(suites: Suites, docs: Path) -> list[dict[str, Any]]:
    """Return what Great Expectations found for each check, and write its data docs."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import
    import great_expectations as gx  # 3.5 s, and only this stage needs it
    from great_expectations.expectations.registry import get_expectation_impl

    results = []
    with tempfile.TemporaryDirectory() as scratch:
        context: Any = gx.get_context(mode="file", project_root_dir=scratch)
        context.variables.progress_bars = {"globally": False}
        sites = context.variables.data_docs_sites
        sites["local_site"] |= {"show_how_to_buttons": False, "site_section_builders": _SECTIONS}
        context.variables.data_docs_sites = sites
        source = context.data_sources.add_pandas("data")
        for name, (frame, listed) in suites.items():
            suite = context.suites.add(gx.ExpectationSuite(name=name))
            for check in listed:
                expectation = get_expectation_impl(check.expectation)
                suite.add_expectation(expectation(**check.arguments, meta={"name": check.name}))
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            definition: Any = context.validation_definitions.add(
                gx.ValidationDefinition(name=name, data=batch, suite=suite)
            )
            outcome = definition.run(batch_parameters={"dataframe": frame}, result_format="BASIC")
            found = {result.expectation_config.meta["name"]: result for result in outcome.results}
            results += [_result(name, check, found[check.name]) for check in listed]
        context.build_data_docs()
        shutil.copytree(Path(scratch, "gx/uncommitted/data_docs/local_site"), docs)
    return results


_SECTIONS: Final = {
    "expectations": {"class_name": "DefaultSiteSectionBuilder", "source_store_name": "expectations_store"},
    "validations": {"class_name": "DefaultSiteSectionBuilder", "source_store_name": "validation_results_store"},
}


def _result(suite: str, check: checks.Expectation, result: Any) -> dict[str, Any]:
    """Return one outcome as plain values; a check that our own words call failed is never reported as passed."""
    observed = {key: result.result[key] for key in _OBSERVED if result.result.get(key) is not None}
    return {
        "suite": suite.split("-", 1)[1],
        "name": check.name,
        "expectation": check.expectation,
        "arguments": check.arguments,
        "success": bool(result.success) and not check.problems,
        "observed": observed,
        "problems": list(check.problems),
        "detail": str(result.exception_info.get("exception_message") or observed),
    }


def _describe(rows: pd.DataFrame, labels: Mapping[int, str]) -> dict[str, Any]:
    counts = rows["label"].value_counts()
    classes = {words: int(counts[label]) for label, words in sorted(labels.items()) if label in counts}
    return {"rows": len(rows), "classes": classes, "sources": sorted(rows["source"].unique().tolist())}
