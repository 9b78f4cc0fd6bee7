"""Answers questions about the lineage of registered models from what is recorded of their runs; verifies nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tasks.audit import model_name
from tasks.errors import UserError
from tasks.lineage.chain import Receipts, parse
from tasks.lineage.history import difference, results, upwards, uses
from tasks.registry.dossier import Dossier, parse_selector, read_dossier
from tasks.registry.records import flatten_numbers, flatten_quality
from tasks.registry.tracking import Tracker, store_exists


def lineage_up(workspace: Path, selector: str | None) -> dict[str, Any]:
    """Return one version and the stages behind it, from the data to its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        dossier = _read(_tracker(workspace), workspace, selector, Path(folder))
    return {**_name(dossier), "stages": upwards(*_walk(dossier))}


def lineage_down(workspace: Path, thing: str) -> dict[str, Any]:
    """Return the versions that rest on a thing (digest, commit, path, source), each with the stages that show it."""
    tracker = _tracker(workspace)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in tracker.versions():
            dossier = _read(tracker, workspace, f"{entry.name}/{entry.version}", Path(folder))
            because = uses(*_walk(dossier), thing)
            if because:
                found.append({**_name(dossier), "because": because})
    return {"thing": thing, "models": found}


def diff(workspace: Path, first: str, second: str) -> dict[str, Any]:
    """Return what differs between two versions: data, params, code, environment, git, files and results."""
    tracker = _tracker(workspace)
    with tempfile.TemporaryDirectory() as folder:
        one, other = (_read(tracker, workspace, each, Path(folder)) for each in (first, second))
    numbers = [_numbers(dossier) for dossier in (one, other)]
    return {
        "first": _name(one), "second": _name(other), **difference(_walk(one), _walk(other)), "results": results(*numbers),
    }  # fmt: skip


def _tracker(workspace: Path) -> Tracker:
    if not store_exists(workspace):
        raise UserError(f"{workspace}: no model is registered yet; `compactlm run` makes some")
    return Tracker(workspace)


def _read(tracker: Tracker, workspace: Path, selector: str | None, scratch: Path) -> Dossier:
    return read_dossier(tracker, parse_selector(selector, model_name(workspace)), scratch)


def _walk(dossier: Dossier) -> tuple[Receipts, str]:
    last = f"gate@{dossier.round}"
    if last not in dossier.receipts:
        raise UserError(
            f"{dossier.name}/{dossier.version}: its run has no receipts, it is of an older version; "
            "`compactlm run` with its params records them"
        )
    return {stage: parse(stage, content) for stage, content in dossier.receipts.items()}, last


def _name(dossier: Dossier) -> dict[str, Any]:
    aliases = sorted(alias for alias, number in dossier.aliases.items() if number == dossier.version)
    return {
        "model": dossier.name, "version": int(dossier.version), "round": dossier.round, "aliases": aliases,
        "model_sha256": dossier.tags.get("model_sha256"),
    }  # fmt: skip


def _numbers(dossier: Dossier) -> dict[str, float]:
    evidence = dossier.rounds[dossier.round].evidence
    return {
        **flatten_quality(json.loads(evidence["quality.json"])),
        **flatten_numbers("cost", json.loads(evidence["cost.json"])),
    }
