"""The approval of a promotion, where params.yaml asks for one: opens a proposal, counts the answers, and never waits.

The first `compactlm promote` whose gates pass records a decision that holds the proposal. People sign it with `compactlm
approve`, at any place that has the log. A later `compactlm promote` judges anew and, if the proposal still says what is
decided and enough people approved it, carries it out.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.params.base import Params
from tasks.promotion.answers import FOLDER, read_statements
from tasks.promotion.approval import digest_of, moment, open_proposals, statement_faults, tally
from tasks.promotion.approvers import authors_of, doubt, policy_of
from tasks.promotion.decide import Judge, Request, actor, decide
from tasks.promotion.decisions import TIME, Decision, VersionRecord, read_log
from tasks.promotion.gate import judge_promotion
from tasks.registry.selector import CHALLENGER, find_own_version
from tasks.registry.tracking import Tracker

MARGIN: Final = timedelta(seconds=10)  # a decision is written a moment after it is judged


class WaitingError(UserError):
    """A proposal waits for people; `proposal` and its `digest` say which."""

    def __init__(self, message: str, proposal: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.proposal = proposal


def with_approval(judge: Judge, tracker: Tracker, params: Params, name: str, now: datetime | None = None) -> Judge:
    """Return `judge`, to which a promotion that passes is a pass only if it was approved; WaitingError while it is open."""
    asked = params.promotion.approval
    if asked is None:
        return judge
    policy = policy_of(asked, tracker.workspace)

    def judged(candidate: VersionRecord, champion: VersionRecord | None) -> dict[str, Any]:
        verdict = judge(candidate, champion)
        if verdict["verdict"] != "pass":
            return verdict
        authors = authors_of(tracker, candidate)
        fault = doubt(tracker.workspace, asked, authors)
        if fault:
            return _ruled(verdict, "hold", f"approval: {fault}", None)
        facts = {
            "model": name,
            "candidate": candidate["model_sha256"],
            "round": candidate["round"],
            "champion": champion["model_sha256"] if champion else None,
            "verdict": verdict["verdict"],
            "rules": rules_digest(params),
            "evidence": digest_of(verdict["evidence"]),
            "authors": authors,
            "policy": policy,
        }
        return _answered(tracker.workspace, verdict, facts, now or datetime.now(UTC))

    return judged


def promote_version(tracker: Tracker, params: Params, version: str, reason: str) -> Decision:
    """Return the recorded decision on making a version champion, named as in every command; WaitingError while people answer."""
    name = params.registry.model_name
    request = Request("promote", find_own_version(tracker, version, name, CHALLENGER), reason, actor())
    judge = with_approval(partial(judge_promotion, tracker, params), tracker, params, name)
    return decide(tracker, name, request, judge)


def is_waiting(entry: Decision) -> bool:
    """Return whether a decision only opened a proposal."""
    return (entry["verdict"].get("approval") or {}).get("state") == "waiting"


def rules_digest(params: Params) -> str:
    """Return the sha256 of the rules that a promotion is judged by."""
    values = params.model_dump(mode="json")
    return digest_of({"gates": values["gates"], "promotion": values["promotion"]["gates"]})


def _answered(workspace: Path, verdict: dict[str, Any], facts: dict[str, Any], at: datetime) -> dict[str, Any]:
    """Return the verdict with what people said: held on a new proposal, failed on a rejected one, passed on an approved one."""
    proposal = open_proposals(read_log(workspace), facts["model"]).get(facts["candidate"])
    stale = _stale(proposal, facts, at) if proposal else None
    if proposal is None or stale:
        opened = {
            **facts,
            "proposed_at": at.strftime(TIME),
            "nonce": secrets.token_hex(8),
            "expires_at": (at + timedelta(hours=facts["policy"]["ttl_hours"])).strftime(TIME),
        }
        words = f"approval: waiting for {facts['policy']['quorum']} of {', '.join(facts['policy']['approvers'])}"
        words += f" anew, because {stale}" if stale else ""
        return _ruled(verdict, "hold", words, _record("waiting", opened, []))
    decided_at = at.strftime(TIME)
    statements, unread = read_statements(workspace, digest_of(proposal))
    approving, rejecting, faults = tally(statements, proposal, decided_at)
    counted = [signed for signed in statements if not statement_faults(signed, proposal, decided_at)]
    if rejecting:
        words = f"approval: rejected by {'; '.join(rejecting)}"
        return _ruled(verdict, "fail", words, _record("rejected", proposal, counted))
    if len(approving) < proposal["policy"]["quorum"]:
        raise WaitingError(_so_far(proposal, approving, [*faults, *unread]), proposal)
    return _ruled(verdict, "pass", f"approval: by {', '.join(approving)}", _record("approved", proposal, counted))


def _so_far(proposal: Mapping[str, Any], approving: Sequence[str], not_counted: Sequence[str]) -> str:
    words = f"{len(approving)} of {proposal['policy']['quorum']} approvals"
    words += f" ({', '.join(approving)})" if approving else ""
    words = "; ".join([words, *(f"not counted: {fault}" for fault in not_counted)])
    return f"waiting for approval of proposal {digest_of(proposal)[:12]}: {words}. {how_to(proposal)}"


def how_to(proposal: Mapping[str, Any]) -> str:
    """Return what is to be done about an open proposal."""
    return (
        f"Until {proposal['expires_at']} an approver can run `compactlm approve --key FILE`; commit decisions.jsonl and "
        f"{FOLDER}/ to bring them there and back, then run `compactlm promote` again"
    )


def _ruled(verdict: dict[str, Any], result: str, sentence: str, record: dict[str, Any] | None) -> dict[str, Any]:
    rule = {"metric": "approval", "severity": "block", "result": result, "sentence": sentence}
    words = verdict["sentence"] if result == "pass" else sentence
    return {**verdict, "verdict": result, "sentence": words, "rules": [*verdict["rules"], rule], "approval": record}


def _record(state: str, proposal: Mapping[str, Any], statements: Sequence[Any]) -> dict[str, Any]:
    return {"state": state, "digest": digest_of(proposal), "proposal": proposal, "statements": list(statements)}


def _stale(proposal: Mapping[str, Any], facts: Mapping[str, Any], at: datetime) -> str | None:
    """Return why a proposal no longer says what is to be decided."""
    if at.replace(tzinfo=None) + MARGIN > moment(proposal["expires_at"]):
        return f"the proposal before expired at {proposal['expires_at']}"
    changed = [key for key, value in facts.items() if proposal.get(key) != value]
    return f"since the proposal before this has changed: {', '.join(changed)}" if changed else None
