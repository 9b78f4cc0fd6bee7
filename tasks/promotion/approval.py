"""What people sign before a model becomes champion, and whether what they signed holds. Plain values in, plain values out.

A proposal pins what is to be decided: candidate, champion, rules, evidence, verdict, and who may approve until when. A
statement is one person's answer to one proposal. A decision holds both, so it can be checked later without anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from tasks.promotion.decisions import TIME
from tasks.promotion.keys import signer

SKEW: Final = timedelta(minutes=5)  # how far the clocks of two honest machines may be apart
ANSWERS: Final = ("approve", "reject")
JUDGED: Final = ("model", "candidate", "champion", "rules", "evidence", "verdict")
PARTS: Final = {*JUDGED, "authors", "policy", "proposed_at", "expires_at"}  # what a proposal pins
Statement = Mapping[str, Any]  # {"statement": {proposal, decision, name, key, at, reason}, "signature": armoured}


def canonical(value: Any) -> bytes:
    """Return the bytes of a JSON value that are hashed and signed."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Return the sha256 of a JSON value, which names a proposal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def statement_faults(signed: Statement, proposal: Mapping[str, Any], decided_at: str) -> list[str]:
    """Return why a signed statement does not count for a proposal, a sentence each; empty when it counts.

    It counts when its signature is that of the key it names, the policy in the proposal has this key under this name, who
    approves is not an author (where that is asked), the digest is the proposal's, and its time lies within the proposal's
    and, clocks allowed for, not after the decision.
    """
    statement, policy = signed.get("statement"), proposal["policy"]
    if not isinstance(statement, Mapping) or statement.get("decision") not in ANSWERS:
        return ["not a signed statement"]
    who, at, key = str(statement.get("name")), statement.get("at"), statement.get("key")
    wrong = []
    if key is None or signer(canonical(statement), str(signed.get("signature"))) != key:
        wrong.append("the signature is not one of this statement by this key")
    if policy["approvers"].get(who) != key:
        wrong.append("not an approver with this key")
    if policy["not_author"] and statement["decision"] == "approve" and is_author(who, proposal):
        wrong.append("is the author of the model's commit, and may not approve it")
    if statement.get("proposal") != digest_of(proposal):
        wrong.append(f"signed another proposal, {str(statement.get('proposal'))[:12]}")
    if not is_time(at) or not moment(proposal["proposed_at"]) - SKEW <= moment(at) <= moment(proposal["expires_at"]):
        wrong.append(f"signed at {at}, not between {proposal['proposed_at']} and {proposal['expires_at']}")
    elif moment(at) > moment(decided_at) + SKEW:
        wrong.append(f"signed at {at}, after the decision at {decided_at}")
    return [f"{who}: {fault}" for fault in wrong]


def is_author(who: str, proposal: Mapping[str, Any]) -> bool:
    """Return whether a name or address is that of an author of the model's commits."""
    return who.casefold() in {author.casefold() for author in proposal["authors"]}


def tally(
    statements: Iterable[Statement], proposal: Mapping[str, Any], decided_at: str
) -> tuple[list[str], list[str], list[str]]:
    """Return the names of those who approve, the words of those who reject, and why other statements do not count.

    A key counts once.
    """
    approving: dict[str, str] = {}
    rejecting, faults = [], []
    for signed in statements:
        wrong = statement_faults(signed, proposal, decided_at)
        if wrong:
            faults += wrong
            continue
        statement = signed["statement"]
        if statement["decision"] == "reject":
            rejecting.append(f"{statement['name']}: {statement.get('reason')}")
        else:
            approving[statement["key"]] = statement["name"]
    return sorted(approving.values()), sorted(rejecting), faults


def approval_faults(
    decision: Mapping[str, Any], policy: Mapping[str, Any] | None = None, authors: Sequence[str] | None = None
) -> list[str]:
    """Return what is wrong with the approvals in a recorded decision, a sentence each; empty when they bear it out.

    Needs nothing but the decision: the proposal, the approvers' public keys and the signed statements are in it. What the
    auditor knows from elsewhere can be given as well and must then be what the proposal says: `policy` ({quorum, not_author,
    ttl_hours, approvers: name -> public key}, which `approvers.policy_of` reads from params.yaml at the decision's commit;
    a promotion without approval is then a fault) and `authors` (names and addresses of the authors of the model's commits).
    """
    number = decision.get("number")
    approval = decision["verdict"].get("approval")
    if approval is None:
        asked = policy is not None and decision["kind"] in ("promote", "first", "adopt") and decision["outcome"] == "done"
        return [f"decision {number} has no approval, though one was asked for"] if asked else []
    if not _is_whole(approval):
        return [f"decision {number}: its approval is not whole"]
    proposal, wrong = approval["proposal"], []
    if approval["digest"] != digest_of(proposal):
        wrong.append("the proposal was changed: its digest is not that of its content")
    wrong += [f"the proposal is about another {what}" for what, here in _subject(decision).items() if proposal[what] != here]
    if policy is not None and policy != proposal["policy"]:
        wrong.append("who may approve, and how many must, is not what was asked for")
    if authors is not None and sorted(authors) != proposal["authors"]:
        wrong.append(f"the authors are {', '.join(sorted(authors))}, not {', '.join(proposal['authors'])}")
    if decision["outcome"] == "done":
        wrong += _quorum_faults(approval, decision["at"])
    return [f"decision {number}: {fault}" for fault in wrong]


def _quorum_faults(approval: Mapping[str, Any], decided_at: str) -> list[str]:
    proposal = approval["proposal"]
    approving, rejecting, wrong = tally(approval["statements"], proposal, decided_at)
    quorum = max(1, proposal["policy"]["quorum"])
    if approval["state"] != "approved" or rejecting:
        wrong.append("it was carried out though it was not approved")
    if len(approving) < quorum:
        wrong.append(f"{len(approving)} of {quorum} approvals hold")
    if moment(decided_at) > moment(proposal["expires_at"]):
        wrong.append(f"decided at {decided_at}, after the proposal had expired at {proposal['expires_at']}")
    if proposal["policy"]["not_author"] and not proposal["authors"]:
        wrong.append("the author of the model's commit was not known")
    return wrong


def _subject(decision: Mapping[str, Any]) -> dict[str, Any]:
    champion = decision["before"]["champion"]
    return {
        "model": decision["model"],
        "candidate": decision["candidate"]["model_sha256"],
        "champion": champion["model_sha256"] if champion else None,
    }


def _is_whole(approval: Any) -> bool:
    """Return whether a decision's approval has all its parts, so that they can be looked at."""
    proposal = approval.get("proposal") if isinstance(approval, Mapping) else None
    if not isinstance(proposal, Mapping) or not set(proposal) >= PARTS:
        return False
    parts = set(approval) >= {"digest", "state", "statements"}
    policy = set(proposal["policy"]) >= {"quorum", "not_author", "approvers"}
    return parts and policy and is_time(proposal["proposed_at"]) and is_time(proposal["expires_at"])


def moment(text: str) -> datetime:
    """Return the time that a record writes as text."""
    return datetime.strptime(text, TIME)


def is_time(text: Any) -> TypeGuard[str]:
    """Return whether a value is a time as records write it."""
    try:
        moment(text)
    except (TypeError, ValueError):
        return False
    return True


def open_proposals(log: Sequence[Mapping[str, Any]], model: str) -> dict[str, dict[str, Any]]:
    """Return candidate's sha256 -> its proposal, of those about a model that no later decision has settled."""
    proposals: dict[str, dict[str, Any]] = {}
    for entry in log:
        if entry["model"] != model:
            continue
        record = entry["verdict"].get("approval")
        if record is not None and record["state"] == "waiting":
            proposals[record["proposal"]["candidate"]] = dict(record["proposal"])
        elif record is not None:
            proposals.pop(record["proposal"]["candidate"], None)
        if entry["outcome"] == "done":
            proposals = {}  # all of them were about another champion
    return proposals
