"""The page of an audit: what it says, that nothing breaks it, and that a graph shows no way twice."""

from __future__ import annotations

from typing import Any

from tasks.report.audit import reduced, render

EDGES = [("fetch", "prepare"), ("prepare", "teacher"), ("fetch", "teacher"), ("teacher", "prune@r1")]


def report(**changes: Any) -> dict[str, Any]:
    results = {"fetch": "PASS", "prepare": "PASS", "teacher": "FAIL", "prune@r1": "UNKNOWN"}
    return {
        "model": "tiny",
        "version": "3",
        "aliases": ["champion"],
        "round": "r1",
        "result": "FAIL",
        "counts": {"PASS": 7, "FAIL": 1, "UNKNOWN": 0},
        "files": 12,
        "bytes": 45_600_000,
        "model_sha256": "a" * 64,
        "receipts_root": "b" * 64,
        "checks": [
            {"result": "PASS", "name": "git", "subject": "fetch", "sentence": "same", "expected": 1, "found": 1},
            {"result": "FAIL", "name": "bytes", "subject": "a<b>", "sentence": "other", "expected": "aa", "found": "bb"},
        ],
        "stages": [{"name": name, "result": result, "outputs": {f"{name}.bin": "1" * 64}} for name, result in results.items()],
        "edges": [list(edge) for edge in EDGES],
        **changes,
    }


def test_it_says_what_is_wrong_and_draws_every_stage() -> None:
    page = render(report())
    assert page == render(report())
    for words in ("tiny/3 @champion", "The lineage is broken", "7 checks pass, 1 fail", "12 files, 45.6 MB", "bb"):
        assert words in page
    assert page.count("<rect") == 4
    assert page.count("<path marker-end") == 3, "the way from fetch to teacher leads through prepare"
    assert "teacher.bin " + "1" * 64 in page
    assert "a&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page


def test_without_receipts_it_says_so() -> None:
    page = render(report(stages=[], edges=[], checks=[], result="UNKNOWN"))
    assert "nothing to draw" in page
    assert "What is wrong" not in page


def test_ways_that_a_longer_one_implies_are_left_out() -> None:
    assert reduced(EDGES) == [EDGES[0], EDGES[1], EDGES[3]]
