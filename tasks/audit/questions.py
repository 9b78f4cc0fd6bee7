"""Answers questions about the lineage of registered models from what is recorded of their runs; verifies nothing.

Questions about lineage on plain values: what a model rests on, what rests on a thing, and how two models differ.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.audit.dossier import Dossier, read_dossier
from tasks.errors import UserError
from tasks.files import file_sha256
from tasks.lineage.chain import Receipts, ancestors, edges, files_of, parse, plain
from tasks.params.file import model_name
from tasks.registry.records import flatten_numbers, flatten_quality
from tasks.registry.selector import find_version
from tasks.registry.tracking import Tracker, store_exists
from tasks.running.dvc import cache_folder, object_path

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
    import pyarrow.parquet as pq

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
        "first": _name(one),
        "second": _name(other),
        **difference(_walk(one), _walk(other)),
        "results": results(*numbers),
    }


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
        "model": dossier.name,
        "version": int(dossier.version),
        "round": dossier.round,
        "aliases": aliases,
        "model_sha256": dossier.tags.get("model_sha256"),
    }


def _numbers(dossier: Dossier) -> dict[str, float]:
    evidence = dossier.rounds[dossier.round].evidence
    return {
        **flatten_quality(json.loads(evidence["quality.json"])),
        **flatten_numbers("cost", json.loads(evidence["cost.json"])),
    }


ENVIRONMENT: Final = ("python", "platform", "lock_sha256")
GIT_CHARACTERS: Final = 7  # fewer of a commit or a digest would fit too many


def upwards(receipts: Receipts, last: str) -> list[dict[str, Any]]:
    """Return the stages behind `last` in the order in which they can run, with what each read, wrote and ran."""
    stages = ancestors(receipts, last)
    links = edges(receipts, stages)
    return [
        {
            "stage": stage,
            "rests_on": [a for a, b in links if b == stage],
            "outputs": {path: entry["sha256"] for path, entry in receipts[stage]["outputs"].items()},
            "parent_models": dict(receipts[stage].get("parent_models", {})),
            "commit": receipts[stage]["git"]["commit"],
            "started_at": receipts[stage]["started_at"],
        }
        for stage in stages
    ]


def uses(receipts: Receipts, last: str, thing: str) -> list[str]:
    """Return why the model judged by `last` rests on a thing: a digest, a commit, a path or a source, or its beginning."""
    found = []
    for stage in ancestors(receipts, last):
        receipt = receipts[stage]
        for path, one in files_of(receipt).items():
            digests = [str(one[key]) for key in ("sha256", "md5") if key in one]
            if path == thing or (len(thing) >= GIT_CHARACTERS and any(one.startswith(thing) for one in digests)):
                found.append(f"{stage}: {path} {digests[0]}")
        commit = str(receipt["git"]["commit"])
        if len(thing) >= GIT_CHARACTERS and commit.startswith(thing):
            found.append(f"{stage}: commit {commit}")
        if thing in (receipt["params"]["data"]["source"], receipt["params"]["teacher"]["model"]):
            found.append(f"{stage}: source {thing}")
    return list(dict.fromkeys(found))


def difference(one: tuple[Receipts, str], other: tuple[Receipts, str]) -> dict[str, Any]:
    """Return what differs between the lineages of two models, each given by its receipts and its last stage.

    Sections: data, params, code, environment, git and files; each maps a name to its value [in the first, in the second].
    """
    first, second = (_facts(*each) for each in (one, other))
    return {section: _changed(first[section], second[section]) for section in first}


def _facts(receipts: Receipts, last: str) -> dict[str, dict[str, Any]]:
    stages = ancestors(receipts, last)
    facts: dict[str, dict[str, Any]] = {"data": {}, "params": {}, "code": {}, "environment": {}, "git": {}, "files": {}}
    facts["params"] = _flat("", plain(receipts[last]["params"]))
    for stage in stages:
        receipt = receipts[stage]
        facts["code"] |= receipt.get("code", {})
        facts["git"] |= {f"{stage}: {key}": receipt["git"].get(key) for key in ("commit", "diff_sha256")}
        environment = receipt["environment"]
        facts["environment"] |= {key: environment.get(key) for key in ENVIRONMENT}
        facts["environment"] |= {
            f"package {name}": version for name, version in environment.get("packages", {}).items()
        }
        facts["environment"] |= {
            key: receipt.get(key) for key in ("device", "precision", "threads") if receipt.get(key)
        }
        if receipt.get("processes", 1) > 1:
            facts["environment"] |= {key: receipt[key] for key in ("processes", "backend")}
        for path, entry in files_of(receipt, "outputs").items():
            section = "data" if stage in ("fetch", "validate_data", "prepare") else "files"
            facts[section][path] = entry["sha256"]
    return facts


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= _flat(f"{prefix}.{key}" if prefix else str(key), item)
        return found
    return {prefix: value}


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted({*first, *second})
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def results(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, list[float | None]]:
    """Return the numbers in which two models differ, by name: [of the first, of the second]."""
    return _changed(first, second)


def tree(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the stages of `upwards` as lines for people: each with its digest and what it rests on directly."""
    width = max(len(row["stage"]) for row in rows)
    lines = []
    for row in rows:
        digest = next(iter(row["outputs"].values()), "")[:12]
        above = ", ".join(row["rests_on"]) or "sources"
        lines.append(f"{row['stage']:{width}}  {digest:12}  from {above}")
    return lines
