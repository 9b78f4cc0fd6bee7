"""Answers questions about the lineage of registered models from what is recorded of their runs; verifies nothing.

What a model rests on, what rests on a thing, and how two models differ.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import SETS
from tasks.audit.dossier import Dossier, find_dossier, require_store
from tasks.data.sources import texts_wanted
from tasks.errors import UserError
from tasks.files import file_sha256, parse_json
from tasks.lineage.chain import Receipt, Receipts, ancestors, edges, files_of, parse, plain
from tasks.registry.records import flatten_numbers, flatten_quality
from tasks.registry.tracking import Tracker
from tasks.running.dvc import cache_folder
from tasks.running.objects import object_path

ROW: Final = re.compile(r"[0-9a-f]{16}")  # as in the column `row_id` of the sets
ENVIRONMENT: Final = ("python", "platform", "lock_sha256")
GIT_CHARACTERS: Final = 7  # fewer of a commit or a digest would fit too many
Lineage = tuple[Receipts, str]  # the receipts of a run, and the stage that judged the model
Sections = dict[str, dict[str, Any]]


def lineage_up(workspace: Path, selector: str | None) -> dict[str, Any]:
    """Return one version and the stages behind it, from the data to its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        dossier = find_dossier(_tracker(workspace), selector, Path(folder))
    return {**dossier.title(), "stages": upwards(*_lineage(dossier))}


def lineage_down(workspace: Path, thing: str) -> dict[str, Any]:
    """Return the versions that rest on a thing (digest, commit, path, source, row), each with the stages that show it.

    For a row the answer has the `sets` in which it is; `unread` are versions whose sets are not here to look it up.
    """
    tracker = _tracker(workspace)
    cache = cache_folder(workspace) if ROW.fullmatch(thing) else None
    models, unread = [], []
    with tempfile.TemporaryDirectory() as folder:
        for entry in tracker.versions():
            dossier = find_dossier(tracker, f"{entry.name}/{entry.version}", Path(folder))
            receipts, last = _lineage(dossier)
            sets, whole = _sets_with(receipts, thing, workspace, cache) if cache else ([], True)
            because = uses(receipts, last, thing) + [f"prepare: row {thing} is in {name}" for name in sets]
            if because:
                models.append({**dossier.title(), "because": because, "sets": sets})
            elif not whole:
                unread.append(dossier.title())
    return {"thing": thing, "models": models, "unread": unread}


def _sets_with(receipts: Receipts, row_id: str, workspace: Path, cache: Path) -> tuple[list[str], bool]:
    """Return the sets of a run that hold a row, and whether the bytes of all its sets were here to look into."""
    import pyarrow.parquet as pq  # not above: it costs the other questions a quarter of a second

    whole, names = True, []
    for path, file in files_of(receipts["prepare"], "outputs").items():
        if path.startswith(f"{SETS}/"):
            places = (object_path(cache, file["md5"]), workspace / path)
            place = next((p for p in places if p.is_file() and file_sha256(p) == file["sha256"]), None)
            whole = whole and place is not None
            if place is not None and row_id in pq.read_table(place, columns=["row_id"])["row_id"].to_pylist():
                names.append(Path(path).stem)
    return names, whole


def diff(workspace: Path, first: str, second: str) -> dict[str, Any]:
    """Return what differs between two versions: data, params, code, environment, git, files and results."""
    tracker = _tracker(workspace)
    with tempfile.TemporaryDirectory() as folder:
        old, new = (find_dossier(tracker, selector, Path(folder)) for selector in (first, second))
    return {
        "first": old.title(),
        "second": new.title(),
        **difference(_lineage(old), _lineage(new)),
        "results": _changed(_numbers(old), _numbers(new)),
    }


def _tracker(workspace: Path) -> Tracker:
    require_store(workspace)
    return Tracker(workspace)


def _lineage(dossier: Dossier) -> Lineage:
    """Return what is recorded of a version's run; UserError when that was before there were receipts."""
    last = f"gate@{dossier.round}"
    if last not in dossier.receipts:
        raise UserError(
            f"{dossier.name}/{dossier.version}: its run has no receipts, it is of an older version; "
            "`compactlm run` with its params records them"
        )
    return {stage: parse(stage, content) for stage, content in dossier.receipts.items()}, last


def _numbers(dossier: Dossier) -> dict[str, float]:
    evidence = dossier.rounds[dossier.round].evidence
    quality, cost = (parse_json(evidence[name]) for name in ("quality.json", "cost.json"))
    return {**flatten_quality(quality), **flatten_numbers("cost", cost)}


def upwards(receipts: Receipts, last: str) -> list[dict[str, Any]]:
    """Return the stages behind `last` in the order in which they can run, with what each read, wrote and ran."""
    stages = ancestors(receipts, last)
    links = edges(receipts, stages)
    return [
        {
            "stage": stage,
            "rests_on": [writer for writer, reader in links if reader == stage],
            "outputs": {path: entry["sha256"] for path, entry in receipts[stage]["outputs"].items()},
            "parent_models": dict(receipts[stage].get("parent_models", {})),
            "commit": receipts[stage]["git"]["commit"],
            "started_at": receipts[stage]["started_at"],
        }
        for stage in stages
    ]


def uses(receipts: Receipts, last: str, thing: str) -> list[str]:
    """Return why the model judged by `last` rests on a thing: a digest, a commit, a path or a source, or its beginning."""

    def begins(name: str) -> bool:
        return len(thing) >= GIT_CHARACTERS and name.startswith(thing)

    reasons = []
    for stage in ancestors(receipts, last):
        receipt = receipts[stage]
        for path, file in files_of(receipt).items():
            if path == thing or begins(file["sha256"]) or begins(file.get("md5", "")):
                reasons.append(f"{stage}: {path} {file['sha256']}")
        commit = str(receipt["git"]["commit"])
        if begins(commit):
            reasons.append(f"{stage}: commit {commit}")
        data = {"stress": None, **receipt["params"]["data"]}
        others = [entry["source"] for _, entry in texts_wanted(data).values()] if "transfer" in data else []
        if thing in (data["source"], receipt["params"]["teacher"]["model"], *others):
            reasons.append(f"{stage}: source {thing}")
    return list(dict.fromkeys(reasons))


def difference(first: Lineage, second: Lineage) -> Sections:
    """Return what differs between the lineages of two models.

    Sections: data, params, code, environment, git and files; each maps a name to its value [in the first, in the second].
    """
    old, new = _facts(*first), _facts(*second)
    return {section: _changed(old[section], new[section]) for section in old}


def _facts(receipts: Receipts, last: str) -> Sections:
    facts: Sections = {"data": {}, "params": {}, "code": {}, "environment": {}, "git": {}, "files": {}}
    facts["params"] = _flat("", plain(receipts[last]["params"]))
    for stage in ancestors(receipts, last):
        receipt = receipts[stage]
        facts["code"] |= receipt.get("code", {})
        facts["git"] |= {f"{stage}: commit": receipt["git"]["commit"], f"{stage}: diff_sha256": receipt["git"]["diff_sha256"]}
        facts["environment"] |= _environment(receipt)
        section = "data" if stage in ("fetch", "validate_data", "prepare") else "files"
        facts[section] |= {path: file["sha256"] for path, file in files_of(receipt, "outputs").items()}
    return facts


def _environment(receipt: Receipt) -> dict[str, Any]:
    environment = receipt["environment"]
    facts = {key: environment.get(key) for key in ENVIRONMENT}
    facts |= {f"package {name}": version for name, version in environment.get("packages", {}).items()}
    placed = {key: receipt.get(key) for key in ("device", "precision", "threads")}
    if receipt.get("processes", 1) > 1:
        placed |= {key: receipt.get(key) for key in ("processes", "backend")}
    return facts | {key: value for key, value in placed.items() if value}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    parts = (_flat(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted({*first, *second})
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def tree(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the stages of `upwards` as lines for people: each with its digest and what it rests on directly."""
    width = max(len(row["stage"]) for row in rows)
    lines = []
    for row in rows:
        digest = next(iter(row["outputs"].values()), "")[:12]
        above = ", ".join(row["rests_on"]) or "sources"
        lines.append(f"{row['stage']:{width}}  {digest:12}  from {above}")
    return lines
