"""Checks on receipts alone: each link's output is the next one's input, and the receipts are those of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tasks.files import listing_sha256
from tasks.lineage.chain import LOCK, Receipt, Receipts, files_of, producers
from tasks.lineage.checks import Finding, compare, failed, unknown, whole
from tasks.lineage.merkle import receipts_root


def links(receipts: Receipts, stages: Sequence[str]) -> list[Finding]:
    """Return whether each stage read exactly the bytes that the stage before it wrote, file by file."""
    wrote = producers(receipts)
    outputs = {path: one for receipt in receipts.values() for path, one in files_of(receipt, "outputs").items()}
    checks: list[Finding] = []
    for stage in stages:
        found: list[Finding] = []
        for path, one in files_of(receipts[stage], "inputs").items():
            if path not in wrote:
                if path != LOCK:
                    found.append(failed("links", path, "a stage that wrote it", "none", f"{stage} read it"))
                continue
            sentence = f"{stage} read other bytes than {wrote[path]} wrote"
            found += compare("links", path, outputs[path]["sha256"], one["sha256"], sentence)
        checks += whole("links", stage, found + _sums(stage, receipts[stage]), "read what the stages before it wrote")
    return checks


def _sums(stage: str, receipt: Receipt) -> list[Finding]:
    """Return where the digest of a folder is not that of its files, or a parent model is not among the inputs."""
    found: list[Finding] = []
    for role in ("inputs", "outputs"):
        for path, entry in receipt[role].items():
            if "files" in entry:
                sums = listing_sha256({name: one["sha256"] for name, one in entry["files"].items()})
                found += compare("links", path, entry["sha256"], sums, f"the receipt of {stage} contradicts itself")
    files = files_of(receipt, "inputs")
    for path, sha256 in receipt.get("parent_models", {}).items():
        known = files.get(path, {}).get("sha256")
        found += compare("links", path, known, sha256, f"the receipt of {stage} names another parent model")
    return found


def merkle(copies: Mapping[str, bytes], recorded: str | None) -> list[Finding]:
    """Return whether the receipts recorded with the run have the Merkle root that was recorded with it."""
    if recorded is None:
        return [unknown("merkle root", "run", "the run was recorded without one; `compactlm run` adds it")]
    found = compare("merkle root", "run", recorded, receipts_root(copies), "a receipt was changed, added or removed")
    return whole("merkle root", "run", found, f"{len(copies)} receipts are those of the run")


def copies_agree(recorded: Mapping[str, bytes], others: Mapping[str, bytes], where: str) -> list[Finding]:
    """Return whether copies of receipts kept elsewhere are the recorded ones."""
    found: list[Finding] = []
    for stage, copy in others.items():
        if stage not in recorded:
            found.append(failed("receipts", stage, "a receipt of the run", "none", f"{where} has one more"))
        else:
            found += compare("receipts", stage, _sha256(recorded[stage]), _sha256(copy), f"{where} has another receipt")
    return whole("receipts", where, found, f"{len(others)} copies agree")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
