"""Answers questions about the lineage of registered models from what is recorded of their runs; verifies nothing."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from tasks.audit import model_name
from tasks.errors import UserError
from tasks.lineage.audit_files import object_path
from tasks.lineage.chain import Receipts, files_of, parse
from tasks.lineage.files import file_sha256
from tasks.lineage.history import difference, results, upwards, uses
from tasks.lineage.pipeline import cache_folder
from tasks.registry.dossier import Dossier, read_dossier
from tasks.registry.records import flatten_numbers, flatten_quality
from tasks.registry.selector import find_version
from tasks.registry.tracking import Tracker, store_exists

ROW: Final = re.compile(r"[0-9a-f]{16}")  # as in the column `row_id` of the sets
SETS: Final = "artifacts/data/sets/"


def lineage_up(workspace: Path, selector: str | None) -> dict[str, Any]:
    """Return one version and the stages behind it, from the data to its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        dossier = _read(_tracker(workspace), workspace, selector, Path(folder))
    return {**_name(dossier), "stages": upwards(*_walk(dossier))}


def lineage_down(workspace: Path, thing: str) -> dict[str, Any]:
    """Return the versions that rest on a thing (digest, commit, path, source, row), each with the stages that show it.

    For a row the answer has the `sets` in which it is; `unread` are versions whose sets are not here to look it up.
    """
    tracker = _tracker(workspace)
    cache = cache_folder(workspace) if ROW.fullmatch(thing) else None
    found, unread = [], []
    with tempfile.TemporaryDirectory() as folder:
        for entry in tracker.versions():
            dossier = _read(tracker, workspace, f"{entry.name}/{entry.version}", Path(folder))
            receipts, last = _walk(dossier)
            because = uses(receipts, last, thing)
            sets, whole = _sets_with(receipts, thing, workspace, cache) if cache else ([], True)
            because += [f"prepare: row {thing} is in {name}" for name in sets]
            if because:
                found.append({**_name(dossier), "because": because, "sets": sets})
            elif not whole:
                unread.append(_name(dossier))
    return {"thing": thing, "models": found, "unread": unread}


def _sets_with(receipts: Receipts, row_id: str, workspace: Path, cache: Path) -> tuple[list[str], bool]:
    """Return the sets of a run that hold a row, and whether the bytes of all its sets were here to look into."""
    whole = True
    found = []
    for path, one in files_of(receipts["prepare"], "outputs").items():
        if path.startswith(SETS):
            places = (object_path(cache, one["md5"]), workspace / path)
            place = next((p for p in places if p.is_file() and file_sha256(p) == one["sha256"]), None)
            whole = whole and place is not None
            if place is not None and row_id in pq.read_table(place, columns=["row_id"])["row_id"].to_pylist():
                found.append(path.removeprefix(SETS).removesuffix(".parquet"))
    return found, whole


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
    return read_dossier(tracker, *find_version(tracker, selector, model_name(workspace)), scratch)


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
