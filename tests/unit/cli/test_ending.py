"""What a run ends with: the result, the rules that are not kept, gains and losses, places, the next command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.artifacts import SELECTION, TEACHER, RoundPaths
from tasks.cli import ending
from tasks.files import write_json
from tests.quality_builder import quality, quality_set

PARAMS: Any = SimpleNamespace(rounds={"r1": None, "r2": None}, registry=SimpleNamespace(model_name="tiny"))


def rule(severity: str, result: str, sentence: str) -> dict[str, Any]:
    return {"severity": severity, "result": result, "sentence": sentence, "metric": "accuracy", "value": 0.9, "threshold": 0.97}


RULES = [
    rule("block", "pass", "total parameters: 10; at most 20 is asked"),
    rule("warn", "fail", "accuracy on typos: 0.7; at least 0.8 is asked"),
]
BROKEN = [rule("block", "fail", f"accuracy on test: 0.{n}; at least 0.97 is asked") for n in range(10, 18)]


def build(folder: Path, verdicts: dict[str, tuple[str, list[dict[str, Any]]]], selected: str | None) -> None:
    for name, value in ((TEACHER, 0.9), ("r1", 0.85), ("r2", 0.8)):
        paths, share = RoundPaths(folder, name), {"value": value, "low": value - 0.02, "high": value + 0.02}
        sets = {"test": quality_set({"overall": {"accuracy": share, "support": 64}})}
        write_json(paths.quality, quality(name, sets, "0" * 64))
        times = {"latency_ms_p50": 10 * value, "teacher_latency_ms_p50": 16.0}
        size = int(1e8 * value**9)
        costs = {"params_total": size // 4, "size_bytes": size, "latency": {"torch": {"32": {}, "1": times}}}
        write_json(paths.cost, costs)
    for name, (verdict, rules) in verdicts.items():
        write_json(RoundPaths(folder, name).verdict, {"verdict": verdict, "sentence": f"{name} in a sentence", "rules": rules})
    write_json(folder / SELECTION, {"selected": selected})


@pytest.fixture
def aliases(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The aliases of the registered model."""
    kept = {"champion": "2", "challenger": "2"}
    monkeypatch.setattr("tasks.registry.tracking.Tracker", lambda _: SimpleNamespace(aliases=lambda _: kept))
    return kept


def test_a_run_whose_round_passes(tmp_path: Path, aliases: dict[str, str]) -> None:
    build(tmp_path, {"r1": ("fail", [*BROKEN, *RULES]), "r2": ("pass", RULES)}, "r2")
    read = ending.read_ending(tmp_path, PARAMS)
    assert ending.ending_lines(read, tmp_path) == [
        "result: r2 of tiny passes its gates: r2 in a sentence",
        "  r1 fail: r1 in a sentence",
        "  r2 warned: accuracy on typos: 0.7; at least 0.8 is asked",
        "  r2 and its teacher: 13.4 MB of 38.7 MB, 3.36 M of 9.69 M parameters; 8 ms of 16 ms at batch 1; "
        "accuracy on test 0.800 (0.780 to 0.820) of 0.900",
        "model: artifacts/rounds/r2/trained/model",
        "report: artifacts/report.html",
        "next: compactlm export tiny@champion --out exported",
    ]
    assert [(entry["round"], entry["words"], entry["value"], entry["threshold"]) for entry in read["rules"]][-1] == (
        "r2",
        "warned",
        0.9,
        0.97,
    )
    aliases["challenger"] = "3"
    assert ending.read_ending(tmp_path, PARAMS)["next"] == "compactlm promote challenger"


def test_a_run_in_which_no_round_passes(tmp_path: Path, aliases: dict[str, str]) -> None:
    build(tmp_path, {"r1": ("fail", [*BROKEN, *RULES]), "r2": ("hold", [rule("block", "hold", "too few rows"), *RULES])}, None)
    lines = ending.ending_lines(ending.read_ending(tmp_path, PARAMS), tmp_path)
    assert lines[0] == "result: no round of tiny passes its gates: r1 fail, r2 hold"
    assert lines[1] == "  r1 broken: accuracy on test: 0.10; at least 0.97 is asked"
    assert lines[7:10] == [
        "  r1: 2 rules more in the report",
        "  r2 undecided: too few rows",
        "  r2 warned: accuracy on typos: 0.7; at least 0.8 is asked",
    ]
    assert lines[10].startswith("  r2 and its teacher: ")
    assert lines[11:] == ["report: artifacts/report.html", "next: compactlm report --open"]
