"""A decision in words: markdown, the same on the model version in MLflow, in Prefect and for `compactlm history --markdown`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.report.markdown import bullets, code, plain, table


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
    lines = [f"## Decision {plain(entry['number'])}: {plain(what)}", ""]
    lines += [f"{plain(entry['at'])}, by {plain(entry['actor'])}. {plain(verdict['sentence'])}", ""]
    lines += [f"Reason: {plain(entry['reason'])}", ""] if entry["reason"] else []
    models = [_model("candidate", candidate), _model("champion before", entry["before"]["champion"])]
    models += [_model("champion now", entry["champion"])]
    lines += [table(["", "version", "round", "weights (sha256)"], models)]
    if rules:
        rows = [[rule["result"], rule["severity"], rule["sentence"]] for rule in rules]
        lines += [table(["result", "severity", "rule"], rows)]
    lines += [f"{left_out} more rules are kept.", ""] if left_out else []
    lines += _answers(verdict.get("approval"))
    digests = f"Digest of this decision {code(entry['sha256'])}, of the one before {code(entry['previous_sha256'])}."
    return "\n".join([*lines, digests, ""])


def _model(what: str, version: Mapping[str, Any] | None) -> list[str]:
    if version is None:
        return [what, "none", "", ""]
    return [what, version["version"], version["round"], code(str(version["model_sha256"])[:16])]


def _answers(approval: Mapping[str, Any] | None) -> list[str]:
    if approval is None:
        return []
    proposal = approval["proposal"]
    lines = [
        f"Proposal {code(approval['digest'][:16])} of {plain(proposal['proposed_at'])}, open until "
        f"{plain(proposal['expires_at'])}: {plain(approval['state'])}.",
        "",
    ]
    said = describe_answers({**approval, "state": ""})
    return [*lines, bullets(said)] if said else lines
