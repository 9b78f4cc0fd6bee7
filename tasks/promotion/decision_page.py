"""A decision in words: markdown, the same on the model version in MLflow, in Prefect and for `compactlm history --markdown`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_markdown(entry: Mapping[str, Any], limit: int | None = None) -> str:
    """Return a decision as markdown of at most `limit` characters; first rules that are kept are left out for it."""
    text = _page(entry, entry["verdict"]["rules"])
    if limit is not None and len(text) > limit:
        broken = [rule for rule in entry["verdict"]["rules"] if rule["result"] != "pass"]
        text = _page(entry, broken, len(entry["verdict"]["rules"]) - len(broken))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def describe_answers(record: Mapping[str, Any] | None) -> list[str]:
    """Return a line a signed answer in a decision, and what it waits for."""
    if record is None:
        return []
    lines = []
    for statement in (signed["statement"] for signed in record["statements"]):
        reason = f": {statement['reason']}" if statement["reason"] else ""
        lines.append(f"{statement['decision']} by {statement['name']} at {statement['at']}{reason}")
    return lines + ([f"open until {record['proposal']['expires_at']}"] if record["state"] == "waiting" else [])


def _page(entry: Mapping[str, Any], rules: list[Mapping[str, Any]], left_out: int = 0) -> str:
    candidate, verdict = entry["candidate"], entry["verdict"]
    what = f"{entry['kind']} version {candidate['version']} ({candidate['round']}), {entry['outcome']}"
    lines = [f"## Decision {entry['number']}: {what}", ""]
    lines += [f"{entry['at']}, by {_cell(entry['actor'])}. {_cell(verdict['sentence'])}", ""]
    lines += [f"Reason: {_cell(entry['reason'])}", ""] if entry["reason"] else []
    lines += ["| | version | round | weights (sha256) |", "|---|---|---|---|", _model("candidate", candidate)]
    lines += [_model("champion before", entry["before"]["champion"]), _model("champion now", entry["champion"]), ""]
    if rules:
        lines += ["| result | severity | rule |", "|---|---|---|"]
        lines += [f"| {rule['result']} | {rule['severity']} | {_cell(rule['sentence'])} |" for rule in rules] + [""]
    lines += [f"{left_out} more rules are kept.", ""] if left_out else []
    lines += _answers(verdict.get("approval"))
    return "\n".join(
        [*lines, f"Digest of this decision `{entry['sha256']}`, of the one before `{entry['previous_sha256']}`.", ""]
    )


def _model(what: str, version: Mapping[str, Any] | None) -> str:
    if version is None:
        return f"| {what} | none | | |"
    return f"| {what} | {version['version']} | {version['round']} | `{str(version['model_sha256'])[:16]}` |"


def _answers(approval: Mapping[str, Any] | None) -> list[str]:
    if approval is None:
        return []
    proposal = approval["proposal"]
    lines = [
        f"Proposal `{approval['digest'][:16]}` of {proposal['proposed_at']}, open until {proposal['expires_at']}: "
        f"{approval['state']}.",
        "",
    ]
    for statement in (signed["statement"] for signed in approval["statements"]):
        reason = f": {_cell(statement['reason'])}" if statement["reason"] else ""
        lines.append(f"- {statement['decision']} by {_cell(statement['name'])} at {statement['at']}{reason}")
    return [*lines, ""] if approval["statements"] else lines


def _cell(text: Any) -> str:
    """Return a text that cannot break a table or begin a tag."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
