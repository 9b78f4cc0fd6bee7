"""The decisions about a run's models as a section of its report: plain values in, HTML out.

The report itself follows from files alone, so that a stage can make it and DVC keep it. Decisions come later and would change it;
they are put into a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.parts import filled

Decision = Mapping[str, Any]


def with_section(page: str, section: str) -> str:
    """Return a report with a section as the first one behind its head."""
    head, end, rest = page.partition("</header>\n")
    if not end:  # a page of another version
        head, end, rest = page, "", ""
    return f"{head}{end}{section}{rest}"


def about_run(log: Sequence[Decision], weights: Mapping[str, str]) -> list[Decision]:
    """Return the decisions that chose, refused or replaced a model of the run, oldest first; `weights`: round -> sha256."""
    of_run = set(weights.values())

    def touches(entry: Decision) -> bool:
        before = entry["before"]["champion"]
        replaced = entry["outcome"] == "done" and before is not None and before["model_sha256"] in of_run
        return entry["candidate"]["model_sha256"] in of_run or replaced

    return [entry for entry in log if touches(entry)]


def standing(log: Sequence[Decision], weights: Mapping[str, str]) -> str:
    """Return in a sentence whether one of the run's models is champion now."""
    champion = log[-1]["champion"] if log else None
    if champion is None:
        return "No model is champion."
    since = next(entry for entry in reversed(log) if entry["outcome"] == "done")
    words = f"since decision {since['number']}, {since['at']}"
    if champion["model_sha256"] in weights.values():
        return f"{champion['round']} of this run is champion, as version {champion['version']}, {words}."
    return f"No model of this run is champion; version {champion['version']} ({champion['round']}) of another run is, {words}."


def section(log: Sequence[Decision], weights: Mapping[str, str], doubt: str | None = None) -> str:
    """Return the section; `log` has the decisions about the model, oldest first, `doubt` says why it cannot be read."""
    decisions, words = (about_run(log, weights), standing(log, weights)) if doubt is None else ([], "")
    return filled("decisions.html.j2", doubt=doubt, standing=words, decisions=decisions)
