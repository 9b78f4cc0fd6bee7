"""Checks the data with Great Expectations before anything is trained on it, and refuses it with DataError."""

from __future__ import annotations

import html
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from tasks.data import causal_lm, classification
from tasks.data.checks import Expectation, Suites
from tasks.data.profile import profile_of
from tasks.errors import DataError
from tasks.files import write_json
from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath

CHECKED: Final = {CLASSIFICATION: classification.checked, CAUSAL_LM: causal_lm.checked}
PROFILE: Final = "profile.json"
_OBSERVED: Final = ("observed_value", "element_count", "unexpected_count")
_SECTIONS: Final = {
    "expectations": {"class_name": "DefaultSiteSectionBuilder", "source_store_name": "expectations_store"},
    "validations": {"class_name": "DefaultSiteSectionBuilder", "source_store_name": "validation_results_store"},
}
_NETWORK: Final = re.compile(
    r"""<script[^>]*\bsrc="https?:[^>]*>\s*</script>|<(?:link|img)[^>]*\b(?:href|src)="https?:[^>]*>|url\('https?:[^)]*\)"""
)
_INDEX: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Checks of the data</title>
<style>body { font: 15px/1.4 system-ui, sans-serif; margin: 2em }
td, th { padding: .3em 1em .3em 0; text-align: left; vertical-align: top }
.met td:first-child { color: #1a7a43 } .failed td:first-child { color: #b3261e; font-weight: bold }</style>
<h1>Checks of the data</h1>
<table><tr><th>result<th>of<th>check<th>expectation<th>asked<th>seen
"""


def run(params: ClassificationParams | CausalLMParams, *, data: InPath, out: OutPath) -> dict[str, Any]:
    """Return the number of expectations, and of rows or documents a set; DataError lists each failed expectation.

    Whether it refuses or not, it leaves summary.json, profile.json and data_docs/ with every check and its numbers.
    """
    shutil.rmtree(out, ignore_errors=True)
    checked = CHECKED[params.task](data, params.data.model_dump(), params.validate_data.model_dump())
    for frame, _ in checked.suites.values():
        if {"text", "characters"} <= {*frame.columns}:
            write_json(out / PROFILE, profile_of([*frame["text"]], [*frame["label"]] if "label" in frame else []))
    results, problems = _expect(checked.suites, out / "data_docs"), list(checked.problems)
    for result in results:
        detail, words = result.pop("detail"), result.pop("problems")
        if not result["success"]:
            problems += words or [f"{result['name']}: {detail}"]
    problems = [f"{checked.file}: {problem}" for problem in problems]
    summary = {"file": checked.file, "sha256": checked.sha256, "sets": checked.sets, "success": not problems}
    write_json(out / "summary.json", {**summary, "expectations": results, "problems": problems})
    if problems:
        count = "1 fault" if len(problems) == 1 else f"{len(problems)} faults"
        docs = f"Every check with its numbers: {out / 'data_docs' / 'index.html'}"
        raise DataError("\n".join([f"{count} in the data; nothing was trained", *problems, docs]))
    return {"expectations": len(results), "sets": {name: entry["rows"] for name, entry in checked.sets.items()}}


def _expect(suites: Suites, docs: Path) -> list[dict[str, Any]]:
    """Return what Great Expectations says of each check, and write its data docs."""
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
        for name, (frame, checks) in suites.items():
            suite = context.suites.add(gx.ExpectationSuite(name=name))
            for check in checks:
                expectation = get_expectation_impl(check.expectation)
                suite.add_expectation(expectation(**check.arguments, meta={"name": check.name}))
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            definition: Any = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
            outcome = definition.run(batch_parameters={"dataframe": frame}, result_format="BASIC")
            by_name = {result.expectation_config.meta["name"]: result for result in outcome.results}
            results += [_result(name, check, by_name[check.name]) for check in checks]
        context.build_data_docs()
        shutil.copytree(Path(scratch, "gx/uncommitted/data_docs/local_site"), docs)
    _stay_here(docs, results)
    return results


def _stay_here(docs: Path, results: list[dict[str, Any]]) -> None:
    """Take what asks the network out of the data docs, and write a first page that needs none of it."""
    for path in docs.rglob("*.html"):
        path.write_text(_NETWORK.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")
    pages = {path.parts[-4].split("-", 1)[1]: path.relative_to(docs).as_posix() for path in docs.glob("validations/*/*/*/*.html")}
    lines = []
    for result in results:
        word, suite = "met" if result["success"] else "failed", result["suite"]
        cells = (result["name"], result["expectation"], *(_words(result[key]) for key in ("arguments", "observed")))
        lines.append(f'<tr class="{word}"><td>{word}<td><a href="{pages[suite]}">{suite}</a>')
        lines += [f"<td>{html.escape(cell)}" for cell in cells]
    (docs / "index.html").write_text("\n".join([_INDEX, *lines, "</table>\n"]), encoding="utf-8")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _result(suite: str, check: Expectation, result: Any) -> dict[str, Any]:
    """Return one outcome as plain values; a check that our own words call failed is never reported as passed."""
    observed = {key: result.result[key] for key in _OBSERVED if result.result.get(key) is not None}
    return {
        "suite": suite.split("-", 1)[1],
        "name": check.name,
        "expectation": check.expectation,
        "arguments": check.arguments,
        "success": bool(result.success) and not check.problems,
        "observed": observed,
        "problems": check.problems,
        "detail": str(result.exception_info.get("exception_message") or observed),
    }
