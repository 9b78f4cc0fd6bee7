"""One person's answer to an open proposal: finds what is meant, signs it, and keeps it as a file that Git can merge.

Needs the log of decisions and a key, not the registry: an approver may sit at any clone of the project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.files import parse_object, read_json, write_json
from tasks.promotion.approval import canonical, digest_of, open_proposals, statement_faults
from tasks.promotion.decisions import now, read_log
from tasks.promotion.keys import own_public_key, sign

# <first 16 of the proposal's digest>/<answer>-<key>.json: files of two people never conflict
FOLDER: Final = "approvals"


def find_proposal(workspace: Path, model: str, numbers: Mapping[str, str], version: str | None) -> dict[str, Any]:
    """Return the open proposal about a version, or the only one; `numbers`: sha256 -> version number, where it is known."""
    log = read_log(workspace)
    known = {entry["candidate"]["model_sha256"]: entry["candidate"]["version"] for entry in log} | dict(numbers)
    proposals = open_proposals(log, model)
    meant = [proposal for sha256, proposal in proposals.items() if version is None or known[sha256] == version]
    if len(meant) == 1:
        return meant[0]
    listed = ", ".join(f"{model}/{known[sha256]}" for sha256 in proposals) or "none; `compactlm promote` makes one"
    raise UserError(f"{model}{f'/{version}' if version else ''}: say which proposal is meant; waiting for approval: {listed}")


def signed_answer(proposal: Mapping[str, Any], decision: str, reason: str, key: Path) -> dict[str, Any]:
    """Return the signed statement of the key's owner; UserError when it would not count."""
    line = own_public_key(key)
    names = [name for name, known in proposal["policy"]["approvers"].items() if known == line]
    if not names:
        allowed = ", ".join(proposal["policy"]["approvers"])
        raise UserError(
            f"--key {key}: {line} is not the key of an approver; approvers: {allowed} (params.yaml: promotion.approval.approvers)"
        )
    statement = {"proposal": digest_of(proposal), "decision": decision, "name": names[0], "key": line}
    statement |= {"at": now(), "reason": reason}
    return _counting({"statement": statement, "signature": sign(canonical(statement), key)}, proposal)


def _counting(signed: dict[str, Any], proposal: Mapping[str, Any]) -> dict[str, Any]:
    wrong = statement_faults(signed, proposal, now())
    if wrong:
        raise UserError(f"proposal {digest_of(proposal)[:12]}: this answer does not count: {'; '.join(wrong)}")
    return signed


def pasted_answer(text: str, proposal: Mapping[str, Any], name: str, decision: str) -> dict[str, Any]:
    """Return the signed statement that `compactlm approve --print` gave; UserError when it does not count or says otherwise."""
    try:
        signed = parse_object(text)
    except (TypeError, ValueError):
        raise UserError("signature: paste the whole line that `compactlm approve --print` gives") from None
    statement = _counting(signed, proposal)["statement"]
    who, answer = statement["name"], statement["decision"]
    if (who, answer) != (name, decision):
        raise UserError(f"the form says {decision} by {name}, the signature {answer} by {who}")
    return signed


def keep_answer(workspace: Path, signed: Mapping[str, Any]) -> Path:
    """Write a signed statement to its file and return the path; the same person's same answer replaces it."""
    path = workspace / answer_path(signed["statement"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, signed)
    return path


def answer_path(statement: Mapping[str, Any]) -> Path:
    """Return where below the project the answer of a key's owner to a proposal is kept."""
    owner = hashlib.sha256(str(statement["key"]).encode()).hexdigest()[:12]
    return Path(FOLDER) / str(statement["proposal"])[:16] / f"{statement['decision']}-{owner}.json"


def read_answer(path: Path) -> dict[str, Any] | None:
    """Return the signed statement in a file, None when there is none."""
    try:
        content = read_json(path)
    except ValueError:
        return None
    whole = isinstance(content, dict) and set(content) == {"statement", "signature"}
    return content if whole and isinstance(content["statement"], dict) else None


def read_statements(workspace: Path, digest: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the signed statements about a proposal that are in the project, and what is wrong with files that hold none."""
    statements, faults = [], []
    for path in sorted((workspace / FOLDER / digest[:16]).glob("*.json")):
        content = read_answer(path)
        if content is not None:
            statements.append(content)
        else:
            faults.append(f"{path.relative_to(workspace)} is not a signed statement")
    return statements, faults
