"""The report of the last run together with the decisions about its models, as a page of its own."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import REPORT, ROUNDS
from tasks.errors import UserError
from tasks.files import read_json
from tasks.git import has_git
from tasks.promotion.decisions import Decision, read_log
from tasks.report.decisions import about_run, section, with_section

TITLE: Final = re.compile(r"<title>(.*?): ")
PAGE: Final = ".compactlm/report.html"  # not the stage's file, which follows from the run alone


def write_report(workspace: Path, model: str) -> dict[str, Any]:
    """Return the `path` of the page, the `model` that it is of, and the numbers of the `decisions` in it.

    `model` is the registered model's name in params.yaml. A report of the run before that was changed is of another one, with
    the decisions about that.
    """
    source = workspace / REPORT
    if not source.exists():
        raise UserError(f"{source}: there is no report yet; `compactlm run` writes it")
    weights = {
        path.parents[1].name: str(read_json(path)["model_sha256"])
        for path in sorted((workspace / ROUNDS).glob("*/evaluated/quality.json"))
    }
    text = source.read_text(encoding="utf-8")
    title = TITLE.search(text)
    name = html.unescape(title[1]) if title else model
    log, doubt = _log(workspace, name)
    page = workspace / PAGE
    try:
        page.parent.mkdir(exist_ok=True)
        page.write_text(with_section(text, section(log, weights, doubt)), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page}: cannot be written ({error.strerror or error}); without the decisions it is {source}") from None
    return {"path": str(page), "model": name, "decisions": [entry["number"] for entry in about_run(log, weights)]}


def _log(workspace: Path, model: str) -> tuple[list[Decision], str | None]:
    """Return the decisions about a model, or why they cannot be read."""
    if not has_git(workspace):
        return [], "the workspace is in no Git repository, where decisions are recorded"
    try:
        return [entry for entry in read_log(workspace) if entry["model"] == model], None
    except UserError as error:
        return [], str(error)
