"""Questions about lineage on plain values: what a model rests on, what rests on a thing, and how two models differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.lineage.chain import Receipts, ancestors, edges, files_of, plain

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
