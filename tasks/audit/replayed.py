"""What a replayed stage left, compared with what its receipt says it left the first time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.files import file_sha256, read_json
from tasks.lineage.chain import Receipt, files_of, plain
from tasks.lineage.checks import Finding, compare, failed, passed, unknown

NAME: Final = "replay"
TOLERANCE: Final = 0.02  # of a metric over a whole set, where a device adds in another order each time
PAGES: Final = "artifacts/validation/data_docs/"  # pages that show when they were written, also in their names
CLOCKED_FILES: Final = ("cost.json", "verdict.json")  # the latter has the values of the rules that judge latency
MEASURED_COSTS: Final = frozenset({"latency", "peak_memory_bytes"})
TIMED: Final = "latency"  # the beginning of the metrics of rules that judge measured times
SHOWN: Final = 5  # changes of the environment in a sentence; the report has them all


def environment(receipt: Receipt, again: Receipt) -> list[str]:
    """Return what was another environment when a stage was replayed, such as `torch 2.12.0 -> 2.13.0`."""
    pairs: dict[str, tuple[Any, Any]] = {
        key: (receipt["environment"].get(key), again["environment"].get(key)) for key in ("python", "platform")
    }
    pairs |= {key: (receipt.get(key), again.get(key)) for key in ("device", "precision", "threads")}
    for key, usual in (("processes", 1), ("backend", None)):  # older receipts do not have them
        pairs[key] = (receipt.get(key, usual), again.get(key, usual))
    for key in ("compiled", "strategy"):  # told where they are not the usual ones
        pairs[key] = (receipt.get("facts", {}).get(key), again.get("facts", {}).get(key))
    # A package that has come since changes nothing; one that went or has another version may.
    here = again["environment"]["packages"]
    pairs |= {name: (version, here.get(name)) for name, version in receipt["environment"]["packages"].items()}
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def is_deterministic(receipt: Receipt, again: Receipt) -> bool:
    """Return whether both executions were on a CPU, where the same work gives the same bits."""
    return all(str(one.get("device") or "cpu").startswith("cpu") for one in (receipt, again))


def is_clocked(path: str) -> bool:
    """Return whether a file holds measured times, so that it never comes out with the same bytes."""
    return path.startswith(PAGES) or path.rpartition("/")[2] in CLOCKED_FILES


@dataclass(frozen=True)
class Context:
    """What a comparison depends on besides the files.

    `read_other`: an input that came out otherwise in this replay, None when all are the recorded ones. `tolerant`: a device
    that is not deterministic had a part, so metrics decide. `has_metrics`: the replay measures the models anew.
    """

    read_other: str | None
    tolerant: bool
    has_metrics: bool


def compare_stage(
    receipt: Receipt, again: Receipt, tree: Path, recorded: Mapping[str, Path | None], context: Context
) -> list[Finding]:
    """Return where a stage's outputs below `tree` are not those of its receipt, or one check that passed.

    `recorded` holds where the recorded bytes are, for files that hold measured times besides what is always the same.
    """
    stage, changes = str(receipt["stage"]), environment(receipt, again)
    found: list[Finding] = []
    code = {path: again["code"].get(path, sha256) for path, sha256 in receipt["code"].items()}  # less may be loaded
    for key, new in (("command", again["command"]), ("params", again["params"]), ("code", code)):
        found += compare(NAME, f"{stage}: {key}", plain(receipt[key]), plain(new), "the replay ran something else")
    counts = {"same": 0, "clocked": 0, "close": 0}
    for path, one in files_of(receipt, "outputs").items():
        if path.startswith(PAGES):
            continue
        here = file_sha256(tree / path) if (tree / path).is_file() else "no such file"
        kind, checks = _compare_file(path, one["sha256"], here, recorded.get(path), tree, context, changes, stage)
        counts[kind] += 1
        found += checks
    return found or [passed(NAME, stage, _words(counts, changes))]


def _compare_file(
    path: str,
    expected: str,
    here: str,
    old: Path | None,
    tree: Path,
    context: Context,
    changes: Sequence[str],
    stage: str,
) -> tuple[str, list[Finding]]:
    """Return how a file came out (`same`, `clocked` or `close`) and what is wrong with it."""
    name = path.rpartition("/")[2]
    if here == expected:
        return "same", []
    if here == "no such file":
        return "close", [failed(NAME, path, expected, here, f"{stage} did not write it again")]
    if context.read_other is not None and not context.tolerant:
        return "close", [unknown(NAME, path, f"follows from other bytes of {context.read_other}")]
    if name in CLOCKED_FILES or (context.tolerant and name == "quality.json"):
        if old is None:
            return "clocked", [unknown(NAME, path, "the recorded file is not here to compare it with")]
        return "clocked", compare_numbers(path, old, tree / path, context.tolerant)
    if context.tolerant:
        words = "other bytes on a device that is not deterministic, and no metrics are replayed to judge by"
        return "close", [] if context.has_metrics else [unknown(NAME, path, words)]
    if changes:
        return "close", [unknown(NAME, path, f"came out otherwise in another environment: {_few(changes)}")]
    return "close", [failed(NAME, path, expected, here, f"{stage} gives other bytes when it runs again")]


def _words(counts: Mapping[str, int], changes: Sequence[str]) -> str:
    words = f"{counts['same']} files came out bit for bit"
    words += f", {counts['clocked']} but for measured times" if counts["clocked"] else ""
    words += f", {counts['close']} otherwise on a device that is not deterministic" if counts["close"] else ""
    return words + (f"; the environment was another one: {_few(changes)}" if changes else "")


def _few(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return ", ".join(changes[:SHOWN]) + more


def compare_numbers(path: str, old: Path, new: Path, tolerant: bool) -> list[Finding]:
    """Return what differs between two copies of cost.json, verdict.json or quality.json beyond clocks and tolerance."""
    one, other = read_json(old), read_json(new)
    if path.endswith("cost.json"):
        first, second = (_without(content, MEASURED_COSTS) for content in (one, other))
        return compare(NAME, path, _text(first), _text(second), "numbers that are not measured times differ")
    if path.endswith("verdict.json"):
        return _verdicts(path, one, other, tolerant)
    here = _values(other)
    return [
        failed(NAME, f"{path}: {key}", value, here.get(key), f"differs by more than {TOLERANCE}")
        for key, value in _values(one).items()
        if key not in here or abs(here[key] - value) > TOLERANCE
    ]


def _verdicts(path: str, one: Mapping[str, Any], other: Mapping[str, Any], tolerant: bool) -> list[Finding]:
    found: list[Finding] = []
    for number, (old, new) in enumerate(zip(one["rules"], other["rules"], strict=True), start=1):
        subject = f"{path}: rule {number}"
        if not tolerant and not str(old.get("metric")).startswith(TIMED):
            found += compare(NAME, subject, _text(old), _text(new), "the gate finds something else")
        elif old["result"] != new["result"]:
            words = f"{old.get('metric')}: {old['result']} when recorded, {new['result']} now; it is measured anew"
            found.append(unknown(NAME, subject, words))
    return found or compare(NAME, path, one["verdict"], other["verdict"], "the gate gives another verdict")


def _without(content: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def _values(quality: Mapping[str, Any]) -> dict[str, float]:
    """Return set/metric -> value over whole sets."""
    return {
        f"{name}/{metric}": float(value["value"])
        for name, entry in quality["sets"].items()
        for metric, value in entry["slices"]["overall"].items()
        if isinstance(value, Mapping)
    }
