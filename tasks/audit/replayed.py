"""What a replayed stage left, compared with what its receipt says it left the first time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import DATA_DOCS
from tasks.audit.evidence import Places
from tasks.files import file_sha256, read_json
from tasks.lineage.chain import Receipt, files_of, plain
from tasks.lineage.checks import Finding, compare, failed, passed, unknown

NAME: Final = "replay"
TOLERANCE: Final = 0.02  # of a metric over a whole set, where a device adds in another order each time
CLOCKED_FILES: Final = ("cost.json", "verdict.json")  # the latter has the values of the rules that judge latency
MEASURED_COSTS: Final = frozenset({"latency", "peak_memory_bytes"})
TIMED: Final = "latency"  # the beginning of the metrics of rules that judge measured times
SHOWN: Final = 5  # changes of the environment in a sentence; the report has them all


def environment(receipt: Receipt, again: Receipt) -> list[str]:
    """Return what was another environment when a stage was replayed, such as `torch 2.12.0 -> 2.13.0`."""
    old, new = (_environment(execution) for execution in (receipt, again))
    # A package that has come since changes nothing; one that went or has another version may.
    return [f"{name} {value} -> {new.get(name)}" for name, value in old.items() if value != new.get(name)]


def _environment(receipt: Receipt) -> dict[str, Any]:
    """Return where and how a stage ran, by name; older receipts do not have all of it."""
    environment, facts = receipt["environment"], receipt.get("facts", {})
    return {
        **{key: environment.get(key) for key in ("python", "platform")},
        "processor": environment.get("processor", "not recorded"),
        **{key: receipt.get(key) for key in ("device", "precision", "threads")},
        "processes": receipt.get("processes", 1),
        "backend": receipt.get("backend"),
        **{key: facts.get(key) for key in ("compiled", "strategy")},  # recorded where they are not the usual ones
        **environment["packages"],
    }


def is_deterministic(receipt: Receipt, again: Receipt) -> bool:
    """Return whether both executions were on a CPU, where the same work gives the same bits."""
    return all(str(execution.get("device") or "cpu").startswith("cpu") for execution in (receipt, again))


def is_clocked(path: str) -> bool:
    """Return whether a file holds measured times, so that it never comes out with the same bytes."""
    return path.startswith(DATA_DOCS) or path.rpartition("/")[2] in CLOCKED_FILES


@dataclass(frozen=True)
class Context:
    """What a comparison depends on besides the files.

    `read_other`: an input that came out otherwise in this replay, None when all are the recorded ones. `tolerant`: a device
    that is not deterministic had a part, so metrics decide. `has_metrics`: the replay measures the models anew.
    """

    read_other: str | None
    tolerant: bool
    has_metrics: bool


def compare_stage(receipt: Receipt, again: Receipt, tree: Path, recorded: Places, context: Context) -> list[Finding]:
    """Return where a stage's outputs below `tree` are not those of its receipt, or one check that passed.

    `recorded` holds where the recorded bytes are, for files that hold measured times besides what is always the same.
    """
    stage, changes = receipt["stage"], environment(receipt, again)
    code = {path: again["code"].get(path, sha256) for path, sha256 in receipt["code"].items()}  # less may be loaded
    pairs = {
        "command": (receipt["command"], again["command"]),
        "params": (receipt["params"], again["params"]),
        "code": (receipt["code"], code),
    }
    findings: list[Finding] = []
    for key, (old, new) in pairs.items():
        findings += compare(NAME, f"{stage}: {key}", plain(old), plain(new), "the replay ran something else")
    counts: Counter[str] = Counter()
    for path, file in files_of(receipt, "outputs").items():
        place, expected = tree / path, file["sha256"]
        if path.startswith(DATA_DOCS):  # pages that show when they were written, also in their names
            continue
        if not place.is_file():
            findings.append(failed(NAME, path, expected, "no such file", f"{stage} did not write it again"))
        elif (here := file_sha256(place)) == expected:
            counts["same"] += 1
        else:
            wrong = failed(NAME, path, expected, here, f"{stage} gives other bytes when it runs again")
            kind, faults = _compare_file(wrong, recorded.get(path), place, context, changes)
            counts[kind] += 1
            findings += faults
    return findings or [passed(NAME, stage, _words(counts, changes))]


def _compare_file(
    wrong: Finding, old: Path | None, new: Path, context: Context, changes: Sequence[str]
) -> tuple[str, list[Finding]]:
    """Return how a file with other bytes came out (`clocked` or `close`) and what is wrong: `wrong` when nothing explains it."""
    path, name = wrong.subject, new.name
    if context.read_other is not None and not context.tolerant:
        return "close", [unknown(NAME, path, f"follows from other bytes of {context.read_other}")]
    if name in CLOCKED_FILES or (context.tolerant and name == "quality.json"):
        if old is None:
            return "clocked", [unknown(NAME, path, "the recorded file is not here to compare it with")]
        return "clocked", _compare_numbers(path, read_json(old), read_json(new), context.tolerant)
    if context.tolerant:
        words = "other bytes on a device that is not deterministic, and no metrics are replayed to judge by"
        return "close", [] if context.has_metrics else [unknown(NAME, path, words)]
    if changes:
        return "close", [unknown(NAME, path, f"came out otherwise in another environment: {_few(changes)}")]
    return "close", [wrong]


def _words(counts: Counter[str], changes: Sequence[str]) -> str:
    words = f"{counts['same']} files came out bit for bit"
    words += f", {counts['clocked']} but for measured times" if counts["clocked"] else ""
    words += f", {counts['close']} otherwise on a device that is not deterministic" if counts["close"] else ""
    return words + (f"; the environment was another one: {_few(changes)}" if changes else "")


def _few(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return ", ".join(changes[:SHOWN]) + more


def _compare_numbers(path: str, old: Mapping[str, Any], new: Mapping[str, Any], tolerant: bool) -> list[Finding]:
    """Return what differs between two copies of cost.json, verdict.json or quality.json beyond clocks and tolerance."""
    if path.endswith("cost.json"):
        then, now = ({k: v for k, v in cost.items() if k not in MEASURED_COSTS} for cost in (old, new))
        return compare(NAME, path, _text(then), _text(now), "numbers that are not measured times differ")
    if path.endswith("verdict.json"):
        return _verdicts(path, old, new, tolerant)
    here = _values(new)
    return [
        failed(NAME, f"{path}: {key}", value, here.get(key), f"differs by more than {TOLERANCE}")
        for key, value in _values(old).items()
        if key not in here or abs(here[key] - value) > TOLERANCE
    ]


def _verdicts(path: str, old: Mapping[str, Any], new: Mapping[str, Any], tolerant: bool) -> list[Finding]:
    findings: list[Finding] = []
    for number, (then, now) in enumerate(zip(old["rules"], new["rules"], strict=True), start=1):
        subject, metric = f"{path}: rule {number}", str(then.get("metric"))
        if not tolerant and not metric.startswith(TIMED):
            findings += compare(NAME, subject, _text(then), _text(now), "the gate finds something else")
        elif then["result"] != now["result"]:
            words = f"{metric}: {then['result']} when recorded, {now['result']} now; it is measured anew"
            findings.append(unknown(NAME, subject, words))
    return findings or compare(NAME, path, old["verdict"], new["verdict"], "the gate gives another verdict")


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
