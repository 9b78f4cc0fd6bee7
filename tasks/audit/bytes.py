"""Checks of bytes: every file of the lineage, in the workspace and in the DVC cache, against the receipts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.artifacts import Digest, receipt_path
from tasks.audit.evidence import Evidence
from tasks.files import listing_md5
from tasks.lineage.chain import files_of
from tasks.lineage.checks import Finding, compare, unknown, whole
from tasks.running.objects import md5, object_path


def in_workspace(evidence: Evidence) -> list[Finding]:
    """Return whether the workspace's files are those that the stages wrote; what is absent may be in the cache."""
    checks = []
    for stage in evidence.current:
        files = files_of(evidence.receipts[stage], "outputs")
        sentence = f"the file is not what {stage} wrote; `dvc checkout` brings it back after it is removed"
        findings: list[Finding] = []
        for path, file in files.items():
            if (here := evidence.digests[evidence.workspace / path]) is not None:
                findings += compare("workspace", path, file["sha256"], here, sentence)
        for path in _strangers(evidence.workspace, evidence.receipts[stage]["outputs"], files):
            findings += compare("workspace", path, "no such file", "a file", f"{stage} did not write it")
        checks += whole("workspace", stage, findings, f"{len(files)} files are what the stage wrote")
    return checks


def _strangers(workspace: Path, outputs: Mapping[str, Digest], files: Mapping[str, Digest]) -> list[str]:
    """Return files that lie in an output folder and that the stage did not write there."""
    folders = [workspace / path for path, entry in outputs.items() if "files" in entry]
    here = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted({path.relative_to(workspace).as_posix() for path in here} - files.keys())


def in_cache(evidence: Evidence) -> list[Finding]:
    """Return whether the DVC cache's objects hold the bytes of their names; a missing object is no fault."""
    checks = []
    for stage, receipt in evidence.behind:
        findings: list[Finding] = []
        for path, file in files_of(receipt, "outputs").items():
            here = evidence.digests.get(object_path(evidence.cache, file["md5"])) if "md5" in file else None
            if here is not None:
                sentence = f"the cache object {file['md5']} has other bytes; remove it, then `dvc pull` or run again"
                findings += compare("cache", path, file["sha256"], here, sentence)
        name = md5(evidence.recorded[stage])
        place = object_path(evidence.cache, name)
        if place.exists():
            sentence = "the cached receipt was changed"
            findings += compare("cache", receipt_path(stage), name, md5(place.read_bytes()), sentence)
        findings += _listings(evidence.cache, receipt["outputs"])
        checks += whole("cache", stage, findings, "every object has the bytes of its name")
    return checks


def _listings(cache: Path, outputs: Mapping[str, Digest]) -> list[Finding]:
    """Return where the cache's listing of an output folder is not the one its name says."""
    findings: list[Finding] = []
    for path, entry in outputs.items():
        if "files" in entry and "md5" in entry:
            place = object_path(cache, entry["md5"])
            sums = listing_md5({name: file["md5"] for name, file in entry["files"].items()})
            findings += compare("cache", path, entry["md5"], sums, "the receipt contradicts itself")
            if place.exists():
                here = md5(place.read_bytes()) + ".dir"
                findings += compare("cache", path, entry["md5"], here, "the cache's listing of the folder was changed")
    return findings


def nowhere(evidence: Evidence) -> list[Finding]:
    """Return the stages of which some bytes are neither in the workspace nor in the cache, whole."""
    checks = []
    for stage, receipt in evidence.behind:
        missing = [path for path in files_of(receipt, "outputs") if evidence.places[path] is None]
        if missing:
            count = f"{len(missing)} files have their bytes neither here nor in the cache"
            checks.append(unknown("bytes", stage, f"{count}, such as {missing[0]}; `dvc pull`"))
    return checks
