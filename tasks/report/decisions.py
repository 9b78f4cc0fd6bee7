"""The decisions about a run's models as a section of its report: plain values in, HTML out.

The report itself follows from files alone, so that a stage can make it and DVC keep it. Decisions come later and would change it;
they are put into a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.parts import digest, rule_list, text, verdict_mark

Decision = Mapping[str, Any]


def with_section(page: str, section: str) -> str:
    """Return a report with a section as the first one behind its head."""
    head, end, rest = page.partition("</header>\n")
    if not end:  # a page of another version
        head, end, rest = page, "", ""
    return f"{head}{end}{section}{rest}"


def about_run(log: Sequence[Decision], weights: Mapping[str, str]) -> list[Decision]:
    """Return the decisions that chose, refused or replaced a model of the run, oldest first; `weights`: round -> sha256."""
    ours = set(weights.values())

    def touches(entry: Decision) -> bool:
        before = entry["before"]["champion"]
        replaced = entry["outcome"] == "done" and before is not None and before["model_sha256"] in ours
        return entry["candidate"]["model_sha256"] in ours or replaced

    return [entry for entry in log if touches(entry)]


def standing(log: Sequence[Decision], weights: Mapping[str, str]) -> str:
    """Return in a sentence whether one of the run's models is champion now."""
    champion = log[-1]["champion"] if log else None
    if champion is None:
        return "No model is champion."
    since = next(one for one in reversed(log) if one["outcome"] == "done")
    words = f"since decision {since['number']}, {since['at']}"
    if champion["model_sha256"] in weights.values():
        return f"{champion['round']} of this run is champion, as version {champion['version']}, {words}."
    return f"No model of this run is champion; version {champion['version']} ({champion['round']}) of another run is, {words}."


def section(log: Sequence[Decision], weights: Mapping[str, str], doubt: str | None = None) -> str:
    """Return the section; `log` has the decisions about the model, oldest first, `doubt` says why it cannot be read."""
    if doubt is not None:
        body = f"<p>{verdict_mark('hold')} The log of decisions cannot be read: {text(doubt)}</p>"
    else:
        body = f"<p>{text(standing(log, weights))}</p>\n" + "".join(_decision(one) for one in about_run(log, weights))
    return f'<section id="decisions"><h2>Decisions about these models</h2>\n{body}</section>\n'


def _decision(entry: Decision) -> str:
    candidate, verdict = entry["candidate"], entry["verdict"]
    approval = verdict.get("approval") or {"state": None, "statements": []}
    outcome = "waiting" if approval["state"] == "waiting" else entry["outcome"]
    title = f"{entry['kind']} version {candidate['version']} ({candidate['round']}): {outcome}"
    reason = f" Reason: {text(entry['reason'])}" if entry["reason"] else ""
    kept = sum(rule["result"] == "pass" for rule in verdict["rules"])
    listed = f"<details{'' if entry['outcome'] == 'done' else ' open'}><summary>{kept} of {len(verdict['rules'])} rules are kept"
    return (
        f"<h3>{verdict_mark(verdict['verdict'])} Decision {entry['number']}: {text(title)}</h3>\n"
        f'<p class="note">{text(entry["at"])}, by {text(entry["actor"])}.{reason}</p>\n<p>{text(verdict["sentence"])}</p>\n'
        + (f"{listed}</summary>{rule_list(verdict['rules'])}</details>\n" if verdict["rules"] else "")
        + "".join(_answer(one["statement"]) for one in approval["statements"])
        + f'<p class="note">weights {digest(candidate["model_sha256"])}, digest of the decision {digest(entry["sha256"])}</p>\n'
    )


def _answer(said: Mapping[str, Any]) -> str:
    reason = f": {said['reason']}" if said["reason"] else ""
    word = "Approved" if said["decision"] == "approve" else "Rejected"
    return f"<p>{word} and signed by {text(said['name'])} at {text(said['at'])}{text(reason)}</p>\n"
