"""The approval of a promotion, where params.yaml asks for one: opens a proposal, counts the answers, and never waits.

The first `compactlm promote` whose gates pass records a decision that holds the proposal. People sign it with `compactlm
approve`, at any place that has the log. A later `compactlm promote` judges anew and, if the proposal still says what is
decided and enough people approved it, carries it out.
"""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.lineage.files import read_json
from tasks.params import Approval, Params
from tasks.registry.answers import FOLDER, read_statements
from tasks.registry.approval import TIME, digest_of, moment, open_proposals, statement_faults, tally
from tasks.registry.decisions import Decision, read_log
from tasks.registry.keys import public_key
from tasks.registry.promotion import Ask, Judge, actor, decide
from tasks.registry.promotion_gate import judge_promotion
from tasks.registry.tracking import Tracker

MARGIN: Final = timedelta(seconds=10)  # a decision is written a moment after it is judged


class WaitingError(UserError):
    """A proposal waits for people; `proposal` and its `digest` say which."""

    def __init__(self, message: str, proposal: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.proposal = proposal


def policy_of(approval: Approval, folder: Path) -> dict[str, Any]:
    """Return `promotion.approval` with its approvers as name -> public key; a file of them is read below `folder`."""
    approvers, where = approval.approvers, "params.yaml: promotion.approval.approvers"
    if isinstance(approvers, str):
        where = str(folder / approvers)
        approvers = _read_approvers(folder / approvers)
    keys: dict[str, str] = {}
    for name, line in approvers.items():
        try:
            keys[name] = public_key(line)
        except ValueError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    if len(set(keys.values())) < len(keys):
        raise UserError(f"{where}: two approvers have the same key; everybody needs a key of their own")
    if len(keys) < approval.quorum:
        raise UserError(
            f"params.yaml: promotion.approval.quorum: {approval.quorum}, but {where} has {len(keys)} approvers"
        )
    return {**approval.model_dump(mode="json"), "approvers": keys}


def _read_approvers(path: Path) -> dict[str, str]:
    """Return name -> public key of a file with a line each, as in the `allowed_signers` of SSH."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; it has a line an approver: NAME ssh-ed25519 KEY")
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, key = line.strip().partition(" ")
        if name and not name.startswith("#"):
            if name in found:
                raise UserError(f"{path}: line {number}: {name} stands there twice; one key a person")
            found[name] = key
    return found


def with_approval(judge: Judge, tracker: Tracker, params: Params, name: str, now: datetime | None = None) -> Judge:
    """Return `judge`, to which a promotion that passes is a pass only if it was approved; WaitingError while it is open."""
    asked = params.promotion.approval
    if asked is None:
        return judge
    policy = policy_of(asked, tracker.workspace)

    def judged(candidate: dict[str, Any], champion: dict[str, Any] | None) -> dict[str, Any]:
        verdict = judge(candidate, champion)
        if verdict["verdict"] != "pass":
            return verdict
        authors = authors_of(tracker, candidate)
        doubt = _doubt(tracker.workspace, asked, authors)
        if doubt:
            return _ruled(verdict, "hold", f"approval: {doubt}", None)
        facts = {
            "model": name, "candidate": candidate["model_sha256"], "round": candidate["round"],
            "champion": champion["model_sha256"] if champion else None, "verdict": verdict["verdict"],
            "rules": rules_digest(params), "evidence": digest_of(verdict["evidence"]),
            "authors": authors, "policy": policy,
        }  # fmt: skip
        return _answered(tracker.workspace, verdict, facts, now or datetime.now(UTC))

    return judged


def promote_version(tracker: Tracker, params: Params, version: str, reason: str) -> Decision:
    """Return the recorded decision on making a version (number or alias) champion; WaitingError while people are asked."""
    name = params.registry.model_name
    ask = Ask("promote", tracker.aliases(name).get(version, version), reason, actor())
    return decide(tracker, name, ask, with_approval(partial(judge_promotion, tracker, params), tracker, params, name))


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
        opened = {**facts, "proposed_at": at.strftime(TIME), "nonce": secrets.token_hex(8),
                  "expires_at": (at + timedelta(hours=facts["policy"]["ttl_hours"])).strftime(TIME)}  # fmt: skip
        words = f"approval: waiting for {facts['policy']['quorum']} of {', '.join(facts['policy']['approvers'])}"
        return _ruled(
            verdict, "hold", words + (f" anew, because {stale}" if stale else ""), _record("waiting", opened, [])
        )
    now = at.strftime(TIME)
    statements, unread = read_statements(workspace, digest_of(proposal))
    approving, rejecting, faults = tally(statements, proposal, now)
    counted = [one for one in statements if not statement_faults(one, proposal, now)]
    if rejecting:
        words = f"approval: rejected by {'; '.join(rejecting)}"
        return _ruled(verdict, "fail", words, _record("rejected", proposal, counted))
    if len(approving) < proposal["policy"]["quorum"]:
        raise WaitingError(_so_far(proposal, approving, [*faults, *unread]), proposal)
    return _ruled(verdict, "pass", f"approval: by {', '.join(approving)}", _record("approved", proposal, counted))


def _so_far(proposal: Mapping[str, Any], approving: Sequence[str], not_counted: Sequence[str]) -> str:
    words = f"{len(approving)} of {proposal['policy']['quorum']} approvals"
    words += f" ({', '.join(approving)})" if approving else ""
    words = "; ".join([words, *(f"not counted: {one}" for one in not_counted)])
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


def _doubt(workspace: Path, asked: Approval, authors: Sequence[str]) -> str | None:
    """Return what keeps a proposal from being trusted: who may approve is not in Git, or the author is unknown."""
    for name in ["params.yaml", *([asked.approvers] if isinstance(asked.approvers, str) else [])]:
        kept = subprocess.run(
            ["git", "cat-file", "blob", f"HEAD:./{name}"], cwd=workspace, capture_output=True, check=False
        )
        if kept.returncode or kept.stdout != (workspace / name).read_bytes():
            return f"{name} is not as it is committed, and who may approve must stand in Git; commit it"
    if asked.not_author and not authors:
        return "the author of the model's commit is not known, and promotion.approval.not_author is asked"
    return None


def authors_of(tracker: Tracker, candidate: Mapping[str, Any]) -> list[str]:
    """Return names and addresses of the authors of the commits at which a version's stages ran; empty if one is unknown."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = tracker.run_files(candidate["run_id"], "receipts", Path(scratch)) if candidate["run_id"] else None
        receipts = [read_json(path) for path in sorted(folder.glob("*.json"))] if folder else []
    commits = {str(receipt["git"]["commit"]) for receipt in receipts}
    found: set[str] = set()
    for commit in commits:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%an%n%ae", commit, "--"], cwd=tracker.workspace, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if told.returncode:
            return []
        found |= set(told.stdout.split("\n")) - {""}
    return sorted(found)
