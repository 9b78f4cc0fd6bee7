"""The random start of a round as MLflow shows it: its file is the stage's, and its numbers are the file's."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tasks.audit.dossier import RoundRecord
from tasks.audit.registry import RANDOM_START, metrics, stored_files

QUALITY = {"sets": {"test": {"slices": {"overall": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}}}}}
SHOWN = {"random_init/test/accuracy": 0.5, "random_init/test/accuracy_low": 0.4, "random_init/test/accuracy_high": 0.6}


def record(content: bytes, shown: dict[str, float]) -> RoundRecord:
    points = {key: [(value, 0)] for key, value in shown.items()}
    return RoundRecord("r3", "run", {}, points, {RANDOM_START: content}, {}, "model", {}, None)


def wrong(findings: list[Any]) -> list[str]:
    return [finding.subject for finding in findings if finding.result == "FAIL"]


def test_numbers_are_those_of_the_file() -> None:
    content = json.dumps(QUALITY).encode()
    assert wrong(metrics(record(content, SHOWN))) == []
    other = {**SHOWN, "random_init/test/accuracy": 0.9}
    assert wrong(metrics(record(content, other))) == ["r3: random_init/test/accuracy"]
    assert wrong(metrics(record(b"no report", SHOWN))) == ["r3: quality.json"]


def test_the_file_is_the_one_that_the_stage_wrote() -> None:
    content = json.dumps(QUALITY).encode()
    path = "artifacts/rounds/r3/random_init"
    file = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    receipts: Any = {"random_init@r3": {"outputs": {path: {**file, "files": {"quality.json": file}}}}}
    assert wrong(stored_files(record(content, SHOWN), receipts)) == []
    assert wrong(stored_files(record(content + b" ", SHOWN), receipts)) == [f"r3: evidence/{RANDOM_START}"]
