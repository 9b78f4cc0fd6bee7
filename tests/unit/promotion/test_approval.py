"""Approvals that somebody forged, kept too long, took from elsewhere or gave himself, and what a decision is worth with them."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import UserError
from tasks.promotion.approval import approval_faults, digest_of, statement_faults, tally
from tasks.promotion.decisions import faults, sealed
from tasks.promotion.keys import fingerprint, own_public_key, public_key, sign, signer
from tests.signers import make_key, signed_by

ADA, BOB, EVE, AUTHOR = "ada@example.org", "bob@example.org", "eve@example.org", "Carol"
DECIDED = "2026-01-02T12:00:00Z"


@dataclass
class World:
    """Keys by name, a proposal that two of three must approve, and the decision that carries it out."""

    keys: dict[str, Path]
    proposal: dict[str, Any]

    def says(self, name: str, by: str | None = None, **other: Any) -> dict[str, Any]:
        return signed_by(self.keys[by or name], self.proposal, name, **other)

    def decision(self, *statements: dict[str, Any]) -> dict[str, Any]:
        record = {
            "state": "approved",
            "digest": digest_of(self.proposal),
            "proposal": copy.deepcopy(self.proposal),
            "statements": list(statements),
        }
        return {
            "number": 7,
            "model": "toy",
            "kind": "promote",
            "outcome": "done",
            "at": DECIDED,
            "candidate": {"model_sha256": "c" * 64},
            "before": {"champion": {"model_sha256": "a" * 64}, "previous": None},
            "verdict": {"verdict": "pass", "approval": record},
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: make_key(folder / name) for name in (ADA, BOB, EVE, AUTHOR)}
    approvers = {name: own_public_key(keys[name]) for name in (ADA, BOB, AUTHOR)}
    proposal = {
        "model": "toy",
        "candidate": "c" * 64,
        "champion": "a" * 64,
        "round": "r2",
        "verdict": "pass",
        "rules": "1" * 64,
        "evidence": "2" * 64,
        "authors": ["Carol", "carol@example.org"],
        "nonce": "0" * 16,
        "proposed_at": "2026-01-01T12:00:00Z",
        "expires_at": "2026-01-03T12:00:00Z",
        "policy": {"quorum": 2, "not_author": True, "ttl_hours": 48.0, "approvers": approvers},
    }
    return World(keys, proposal)


Answer = Callable[[World], dict[str, Any]]


def _edited(**change: Any) -> Answer:
    def answer(world: World) -> dict[str, Any]:
        signed = world.says(ADA)
        signed["statement"] |= change
        return signed

    return answer


def _other_proposal(world: World) -> dict[str, Any]:
    return signed_by(world.keys[ADA], {**world.proposal, "candidate": "d" * 64}, ADA)


def _signature_of_another_tool(world: World) -> dict[str, Any]:
    import tasks.promotion.keys as keys

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "NAMESPACE", "git")
        return world.says(ADA)


STATEMENTS: dict[str, tuple[Answer, str | None]] = {
    "as it should be": (lambda w: w.says(ADA), None),
    "clock of the approver four minutes slow": (lambda w: w.says(ADA, at="2026-01-01T11:56:00Z"), None),
    "clock of the approver four minutes fast": (lambda w: w.says(ADA, at="2026-01-02T12:04:00Z"), None),
    "signature of another key": (lambda w: w.says(ADA, by=EVE), "not an approver with this key"),
    "her key named, another one signed": (
        lambda w: w.says(ADA, by=EVE, key=w.says(ADA)["statement"]["key"]),
        "the signature is not one",
    ),
    "changed after signing": (_edited(reason="never said"), "the signature is not one"),
    "a reject made an approve": (
        lambda w: {**w.says(ADA, decision="reject"), "statement": w.says(ADA)["statement"]},
        "the signature is not one",
    ),
    "another person's signature": (lambda w: {**w.says(ADA), "signature": w.says(BOB)["signature"]}, "the signature is not one"),
    "signed for another purpose": (_signature_of_another_tool, "the signature is not one"),
    "empty signature": (lambda w: {**w.says(ADA), "signature": ""}, "the signature is not one"),
    "signature that is no text": (lambda w: {**w.says(ADA), "signature": None}, "the signature is not one"),
    "no key named": (lambda w: w.says(ADA, key=None), "the signature is not one"),
    "not on the list": (lambda w: w.says(EVE), "not an approver with this key"),
    "on the list under another name": (lambda w: w.says(BOB, by=ADA), "not an approver with this key"),
    "the author": (lambda w: w.says(AUTHOR), "is the author of the model's commit"),
    "for another candidate": (_other_proposal, "signed another proposal"),
    "for a proposal that was not": (lambda w: w.says(ADA, proposal="f" * 64), "signed another proposal"),
    "after it had expired": (lambda w: w.says(ADA, at="2026-01-03T12:00:01Z"), "signed at 2026-01-03T12:00:01Z, not between"),
    "before it was proposed": (lambda w: w.says(ADA, at="2026-01-01T11:54:59Z"), "not between"),
    "later than the decision": (lambda w: w.says(ADA, at="2026-01-02T12:05:01Z"), "after the decision"),
    "without a time": (lambda w: w.says(ADA, at=None), "signed at None"),
    "in another form of time": (lambda w: w.says(ADA, at="2026-01-02 00:00"), "signed at 2026-01-02 00:00"),
    "neither approve nor reject": (lambda w: w.says(ADA, decision="maybe"), "not a signed statement"),
    "not a statement": (lambda w: {"statement": "approve", "signature": "x"}, "not a signed statement"),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_statement_counts_or_it_is_said_why_not(world: World, case: str) -> None:
    make, expected = STATEMENTS[case]
    found = statement_faults(make(world), world.proposal, DECIDED)
    assert found == [] if expected is None else expected in " ".join(found)


def test_an_author_may_reject_what_he_made(world: World) -> None:
    assert statement_faults(world.says(AUTHOR, decision="reject"), world.proposal, DECIDED) == []


def test_a_key_counts_once_and_a_reject_is_heard(world: World) -> None:
    twice = [world.says(ADA), world.says(ADA, at="2026-01-02T01:00:00Z"), world.says(EVE)]
    approving, rejecting, faults_ = tally(twice, world.proposal, DECIDED)
    assert (approving, rejecting, len(faults_)) == ([ADA], [], 1)
    no = world.says(BOB, decision="reject", reason="slow on long texts")
    assert tally([*twice, no], world.proposal, DECIDED)[1] == [f"{BOB}: slow on long texts"]


Change = Callable[[World], dict[str, Any]]


def _with(**change: Any) -> Change:
    """Return a decision whose approvals hold and of which something else was changed."""
    return lambda world: {**world.decision(world.says(ADA), world.says(BOB)), **change}


def _in_proposal(**change: Any) -> Change:
    def made(world: World) -> dict[str, Any]:
        decision = world.decision(world.says(ADA), world.says(BOB))
        decision["verdict"]["approval"]["proposal"] |= change
        return decision

    return made


def _rehashed(change: Change) -> Change:
    def made(world: World) -> dict[str, Any]:
        decision = change(world)
        record = decision["verdict"]["approval"]
        record["digest"] = digest_of(record["proposal"])
        return decision

    return made


def _less(key: str) -> Change:
    def made(world: World) -> dict[str, Any]:
        decision = world.decision(world.says(ADA), world.says(BOB))
        del decision["verdict"]["approval"]["proposal"][key]
        return decision

    return made


def _state(state: str) -> Change:
    def made(world: World) -> dict[str, Any]:
        decision = world.decision(world.says(ADA), world.says(BOB))
        decision["verdict"]["approval"]["state"] = state
        return decision

    return made


CHAMPION = {"champion": {"model_sha256": "b" * 64}, "previous": None}
DECISIONS: dict[str, tuple[Change, str | None]] = {
    "as it should be": (_with(), None),
    "one approval of two": (lambda w: w.decision(w.says(ADA)), "1 of 2 approvals hold"),
    "none": (lambda w: w.decision(), "0 of 2 approvals hold"),
    "the same one twice": (lambda w: w.decision(w.says(ADA), w.says(ADA, reason="again")), "1 of 2 approvals hold"),
    "the author is the second": (lambda w: w.decision(w.says(ADA), w.says(AUTHOR)), "1 of 2 approvals hold"),
    "a stranger is the second": (lambda w: w.decision(w.says(ADA), w.says(EVE)), "1 of 2 approvals hold"),
    "a forged one is the second": (lambda w: w.decision(w.says(ADA), _edited(name=BOB)(w)), "1 of 2 approvals hold"),
    "one from another proposal": (lambda w: w.decision(w.says(BOB), _other_proposal(w)), "1 of 2 approvals hold"),
    "approved and rejected": (
        lambda w: w.decision(w.says(ADA), w.says(BOB), w.says(AUTHOR, decision="reject")),
        "though it was not approved",
    ),
    "still waiting": (_state("waiting"), "though it was not approved"),
    "rejected": (_state("rejected"), "though it was not approved"),
    "decided after it had expired": (_with(at="2026-01-03T12:00:01Z"), "after the proposal had expired"),
    "another candidate": (_with(candidate={"model_sha256": "d" * 64}), "about another candidate"),
    "champion moved": (_with(before=CHAMPION), "about another champion"),
    "champion deleted": (_with(before={"champion": None, "previous": None}), "about another champion"),
    "another model": (_with(model="other"), "about another model"),
    "quorum lowered afterwards": (_in_proposal(policy={"quorum": 0, "not_author": False, "approvers": {}}), "was changed"),
    "quorum lowered and digest made anew": (
        _rehashed(_in_proposal(policy={"quorum": 1, "not_author": False, "approvers": {}})),
        "0 of 1 approvals hold",
    ),
    "expiry moved and digest made anew": (_rehashed(_in_proposal(expires_at="2027-01-01T00:00:00Z")), "0 of 2 approvals"),
    "author unknown": (_rehashed(_in_proposal(authors=[])), "the author of the model's commit was not known"),
    "no policy": (_less("policy"), "is not whole"),
    "no time": (_in_proposal(expires_at="soon"), "is not whole"),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_decision_is_borne_out_by_its_approvals_or_it_is_said_why_not(world: World, case: str) -> None:
    make, expected = DECISIONS[case]
    found = approval_faults(make(world))
    assert found == [] if expected is None else expected in " ".join(found)
    assert all(one.startswith("decision 7: ") for one in found)


def test_what_an_auditor_knows_from_elsewhere_must_agree(world: World) -> None:
    decision, policy = _with()(world), world.proposal["policy"]
    assert approval_faults(decision, policy, ["carol@example.org", "Carol"]) == []
    assert "not what was asked for" in approval_faults(decision, {**policy, "quorum": 3})[0]
    assert "the authors are Dan" in approval_faults(decision, policy, ["Dan"])[0]
    bare = {**decision, "verdict": {"verdict": "pass"}}
    assert approval_faults(bare) == []
    assert approval_faults(bare, policy) == ["decision 7 has no approval, though one was asked for"]
    assert approval_faults({**bare, "outcome": "refused"}, policy) == []
    assert approval_faults({**bare, "kind": "rollback"}, policy) == []


def test_approvals_are_under_the_chain_of_the_log(world: World) -> None:
    entry = {key: value for key, value in _with()(world).items() if key != "number"}
    log: list[dict[str, Any]] = []
    for actor in ("one", "two", "three"):
        log.append(sealed(copy.deepcopy({**entry, "actor": actor}), log))
    assert faults(log) == []
    assert any("moved" in one for one in faults([log[1], log[0], log[2]]))
    log[1]["verdict"]["approval"]["statements"].pop()
    assert faults(log) == ["decision 2 was changed: its digest is not that of its content"]


@pytest.mark.parametrize("kind", ["openssh", "pem"])
def test_openssh_accepts_our_signature_and_we_accept_its(tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "key", kind)
    line = own_public_key(key)
    (tmp_path / "signers").write_text(f"{ADA} {line}\n")
    (tmp_path / "sig").write_text(sign(b"a message", key))
    verify = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(tmp_path / "signers"),
        "-I",
        ADA,
        "-n",
        "compactlm",
        "-s",
        str(tmp_path / "sig"),
    ]
    assert subprocess.run(verify, input=b"a message", capture_output=True, check=False).returncode == 0
    assert subprocess.run(verify, input=b"another", capture_output=True, check=False).returncode != 0
    if kind == "openssh":
        command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "compactlm"]
        made = subprocess.run(command, input=b"a message", capture_output=True, check=True).stdout.decode()
        assert signer(b"a message", made) == line
        assert signer(b"another", made) is None
        shown = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, check=True, text=True).stdout
        assert fingerprint(line) in shown


def test_a_key_that_cannot_sign_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        sign(b"x", tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="not a private key"):
        sign(b"x", tmp_path / "text")
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "other")], check=True)
    with pytest.raises(UserError, match="only ed25519 keys"):
        sign(b"x", tmp_path / "other")
    with pytest.raises(ValueError, match="not a public ed25519 key"):
        public_key((tmp_path / "other.pub").read_text())


def test_a_key_with_a_passphrase_is_left_to_openssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")  # else it would ask whoever runs the tests
    key = tmp_path / "guarded"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True)
    assert own_public_key(key) == public_key((tmp_path / "guarded.pub").read_text())
    with pytest.raises(UserError, match=r"ssh-keygen could not sign.*ssh-add"):
        sign(b"x", key)
    (tmp_path / "guarded.pub").unlink()
    with pytest.raises(UserError, match="ssh-keygen -y"):
        own_public_key(key)
