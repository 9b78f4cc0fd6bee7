"""Checks on receipts alone: each link's output is the next one's input, and the receipts are those of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.files import listing_sha256
from tasks.lineage.chain import LOCK, ROLES, Receipt, Receipts, files_of, producers, sha256_of, written
from tasks.lineage.checks import Finding, compare, failed, unknown, whole
from tasks.lineage.merkle import receipts_root


def links(receipts: Receipts, stages: Sequence[str]) -> list[Finding]:
    """Return whether each stage read exactly the bytes that the stage before it wrote, file by file."""
    writers, outputs = producers(receipts), written(receipts)
    checks: list[Finding] = []
    for stage in stages:
        findings: list[Finding] = []
        for path, file in files_of(receipts[stage], "inputs").items():
            if path in writers:
                sentence = f"{stage} read other bytes than {writers[path]} wrote"
                findings += compare("links", path, outputs[path]["sha256"], file["sha256"], sentence)
            elif path != LOCK:
                findings.append(failed("links", path, "a stage that wrote it", "none", f"{stage} read it"))
        findings += _sums(stage, receipts[stage])
        checks += whole("links", stage, findings, "read what the stages before it wrote")
    return checks


def _sums(stage: str, receipt: Receipt) -> list[Finding]:
    """Return where the digest of a folder is not that of its files, or a parent model is not among the inputs."""
    findings: list[Finding] = []
    for path, entry in ((path, entry) for role in ROLES for path, entry in receipt[role].items()):
        if "files" in entry:
            sums = listing_sha256({name: file["sha256"] for name, file in entry["files"].items()})
            findings += compare("links", path, entry["sha256"], sums, f"the receipt of {stage} contradicts itself")
    files = files_of(receipt, "inputs")
    for path, sha256 in receipt.get("parent_models", {}).items():
        known = files[path]["sha256"] if path in files else None
        findings += compare("links", path, known, sha256, f"the receipt of {stage} names another parent model")
    return findings


def merkle(copies: Mapping[str, bytes], recorded: str | None) -> list[Finding]:
    """Return whether the receipts recorded with the run have the Merkle root that was recorded with it."""
    if recorded is None:
        return [unknown("merkle root", "run", "the run was recorded without one; `compactlm run` adds it")]
    changed = compare("merkle root", "run", recorded, receipts_root(copies), "a receipt was changed, added or removed")
    return whole("merkle root", "run", changed, f"{len(copies)} receipts are those of the run")


def copies_agree(recorded: Mapping[str, bytes], others: Mapping[str, bytes], where: str) -> list[Finding]:
    """Return whether copies of receipts kept elsewhere are the recorded ones; those of stages not recorded are left out."""
    copies = {stage: copy for stage, copy in others.items() if stage in recorded}
    findings: list[Finding] = []
    for stage, copy in copies.items():
        expected, actual = sha256_of(recorded[stage]), sha256_of(copy)
        findings += compare("receipts", stage, expected, actual, f"{where} has another receipt")
    return whole("receipts", where, findings, f"{len(copies)} copies agree")
