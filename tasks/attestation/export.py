"""Writes one registered model into a folder that a stranger can verify: its files, and what is known of it in public formats.

Only a model whose audit has no FAIL, and only bytes that the receipts name.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts import Digest
from tasks.attestation import instructions as names
from tasks.attestation.bom import bom
from tasks.attestation.card import card
from tasks.attestation.endpoint import check_address, json_line, send
from tasks.attestation.facts import Facts, exported_files, public_address
from tasks.attestation.openlineage import events
from tasks.attestation.provenance import PAYLOAD_TYPE, statement
from tasks.attestation.signing import SigningKey, envelope, read_key, signed_manifest
from tasks.audit.dossier import Dossier, read_dossier
from tasks.audit.evidence import candidates
from tasks.audit.walk import audit
from tasks.errors import UserError
from tasks.files import READ_BYTES, digest, read_json, write_json
from tasks.git import git, has_git
from tasks.lineage.chain import Receipts, ancestors, parse, written
from tasks.lineage.merkle import receipts_root
from tasks.params.parts import CLASSIFICATION, refusal
from tasks.promotion.decisions import read_log
from tasks.registry.tracking import Tracker
from tasks.running.dvc import cache_folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What the publisher asks for: where to, signed with what, under which license, events sent where."""

    out: Path
    key: Path | None
    license: str | None
    openlineage: str | None


def export_model(workspace: Path, selector: str | None, request: ExportRequest, say: Say = lambda _: None) -> dict[str, Any]:
    """Return what was written: folder, files with digests, signing key's fingerprint; the folder is whole or absent.

    Raises UserError when the folder exists, the audit fails, bytes are missing, or the events are not taken.
    """
    start, out = time.monotonic(), request.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: there is something already; name a new or an empty folder")
    if request.openlineage:
        check_address(request.openlineage)
    key = read_key(request.key) if request.key else None
    report = audit(workspace, selector, say)
    _require_sound(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.absolute().name
        folder.mkdir()
        say("copying the model through its digests")
        dossier = _dossier(workspace, report, Path(scratch) / "mlflow")
        facts = _collect(workspace, dossier, report, request, folder)
        say("writing what is known of it")
        _write(facts, folder, key)
        if request.openlineage:
            say(f"sending events to {request.openlineage}")
            send(events(facts), request.openlineage)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    files = digest(out)["files"]
    return {
        "model": facts.name,
        "version": facts.version,
        "round": facts.round,
        "path": str(out),
        "audit": report["counts"],
        "signed_with": key.fingerprint if key else None,
        "files": files,
        "bytes": sum(file["size_bytes"] for file in files.values()),
        "seconds": round(time.monotonic() - start, 2),
    }


def _require_sound(report: Mapping[str, Any]) -> None:
    broken = [check for check in report["checks"] if check["result"] == "FAIL"]
    if broken:
        version, first = f"{report['model']}/{report['version']}", broken[0]
        raise UserError(
            f"{version} is not exported: {len(broken)} checks of its audit fail, first {first['name']}, {first['subject']}: "
            f"{first['sentence']}; `compactlm audit {version}` shows all"
        )


def _dossier(workspace: Path, report: Mapping[str, Any], scratch: Path) -> Dossier:
    """Return what is recorded of the version of a report; UserError unless it is what was audited, and can be shown."""
    scratch.mkdir()
    dossier = read_dossier(Tracker(workspace), report["model"], str(report["version"]), scratch)
    shutil.rmtree(scratch)
    version, last = f"{dossier.name}/{dossier.version}", f"gate@{dossier.round}"
    if last not in dossier.receipts or dossier.receipts_root is None:
        raise UserError(
            f"{version}: its run has no receipts, so nothing can be shown of it; `compactlm run` with its params records them"
        )
    if receipts_root(dossier.receipts) != report["receipts_root"]:
        raise UserError(f"{version}: its receipts changed since the audit a moment ago; try again")
    if refused := refusal(parse(last, dossier.receipts[last])["params"].get("task", CLASSIFICATION), "export"):
        raise UserError(f"{version}: {refused}")
    return dossier


def _collect(workspace: Path, dossier: Dossier, report: Mapping[str, Any], request: ExportRequest, folder: Path) -> Facts:
    """Return the facts of a version, its files copied into `folder`, each through the digest of its receipt."""
    receipts = {stage: parse(stage, content) for stage, content in dossier.receipts.items()}
    stages = ancestors(receipts, f"gate@{dossier.round}")
    files = _copy(workspace, receipts, stages, exported_files(receipts, dossier.round), folder)
    evidence = {name: read_json(folder / name) for name in files if name.startswith("evidence/")}
    return Facts(
        name=dossier.name,
        version=int(dossier.version),
        round=dossier.round,
        license=request.license,
        repository=_repository(workspace),
        root=report["receipts_root"],
        recorded=dossier.receipts,
        receipts=receipts,
        stages=stages,
        files={name: file for name, file in files.items() if name not in evidence},
        config=read_json(folder / "config.json"),
        decisions=_decisions(workspace, dossier),
        num_passed=report["counts"]["PASS"],
        undecided=[check for check in report["checks"] if check["result"] == "UNKNOWN"],
        **{Path(name).stem: content for name, content in evidence.items()},
    )


def _copy(
    workspace: Path, receipts: Receipts, stages: Sequence[str], wanted: Mapping[str, str], folder: Path
) -> dict[str, Digest]:
    """Return name -> sha256 and size_bytes of the files copied from wherever their very bytes are."""
    cache = cache_folder(workspace)
    known = written({stage: receipts[stage] for stage in stages})
    files: dict[str, Digest] = {}
    for name, path in wanted.items():
        places = candidates(workspace, cache, path, known[path])
        if not any(_copied(place, folder / name, known[path]["sha256"]) for place in places):
            sentence = "neither the workspace nor the cache has the bytes of its receipt; `dvc pull` brings them"
            raise UserError(f"{path}: {sentence}")
        files[name] = {"sha256": known[path]["sha256"], "size_bytes": known[path]["size_bytes"]}
    return files


def _copied(source: Path, target: Path, sha256: str) -> bool:
    """Return whether the file has these bytes; they are hashed as they are written, and others are taken away again."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while part := reader.read(READ_BYTES):
            hasher.update(part)
            writer.write(part)
    if hasher.hexdigest() != sha256:
        target.unlink()
        return False
    return True


def _decisions(workspace: Path, dossier: Dossier) -> list[dict[str, Any]]:
    log = read_log(workspace) if has_git(workspace) else []
    weights, name = dossier.tags["model_sha256"], dossier.name
    about = [entry for entry in log if entry["model"] == name and "candidate" in entry]
    return [entry for entry in about if entry["candidate"]["model_sha256"] == weights]


def _repository(workspace: Path) -> str | None:
    done = git(workspace, "remote", "get-url", "origin")
    return public_address(done.stdout.decode().strip()) if done.returncode == 0 else None


def _write(facts: Facts, folder: Path, key: SigningKey | None) -> None:
    """Write every format; the sums come after what they cover, and the signature over the folder comes last."""
    for stage, content in facts.recorded.items():
        _write_bytes(folder / "receipts" / f"{stage}.json", content)
    write_json(folder / names.BOM, bom(facts))
    _write_bytes(folder / names.EVENTS, b"".join(json_line(event) for event in events(facts)))
    _write_bytes(folder / names.CARD, card(facts).encode())
    _write_bytes(folder / names.VERIFY, names.verify_text(key.fingerprint if key else None).encode())
    if key is None:
        write_json(folder / names.STATEMENT, statement(facts))
    else:
        _write_bytes(folder / names.PUBLIC_KEY, key.public_pem)
    sums = {name: file["sha256"] for name, file in digest(folder)["files"].items()}
    _write_bytes(folder / names.SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode())
    if key is not None:
        signed = envelope(json_line(statement(facts)), PAYLOAD_TYPE, key)
        _write_bytes(folder / names.PROVENANCE, json_line(signed))
        _write_bytes(folder / names.SIGNATURE, signed_manifest(folder, key))


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
