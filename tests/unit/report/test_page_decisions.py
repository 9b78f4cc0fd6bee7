"""Decisions as a section of the report: which ones, in which words, and that nothing in them can break the page."""

from __future__ import annotations

import copy
from typing import Any

from tasks.report.decisions import about_run, section, standing, with_section
from tests.unit.promotion.test_decision_page import decision

OURS = {"r3": "c" * 64, "r2": "e" * 64}


def later(entry: dict[str, Any], number: int, weights: str, outcome: str = "done") -> dict[str, Any]:
    """Return a decision about other weights after one that was carried out."""
    made = copy.deepcopy(entry)
    candidate = {"version": str(number), "round": "r1", "model_sha256": weights}
    now = candidate if outcome == "done" else entry["champion"]
    return {
        **made,
        "number": number,
        "candidate": candidate,
        "outcome": outcome,
        "champion": now,
        "before": {"champion": entry["champion"], "previous": None},
    }


def test_a_section_says_who_is_champion_and_who_decided_so_on_which_grounds() -> None:
    text = section([decision()], OURS)
    assert "r3 of this run is champion, as version 3, since decision 3, 2026-01-02T01:00:00Z." in text
    assert "Decision 3: promote version 3 (r3): done" in text
    assert "2026-01-02T01:00:00Z, by Bob. Reason: smaller" in text
    assert "<summary>1 of 2 rules are kept</summary>" in text
    assert "accuracy on slice 0 is | 0.0 &lt;b&gt;" in text
    assert "Approved and signed by ada at 2026-01-02T00:00:00Z: half | the size" in text
    assert "<b>" not in text


def test_decisions_about_other_runs_are_left_out_unless_they_replaced_a_model_of_this_one() -> None:
    first = decision()
    replaced = later(first, 4, "f" * 64)
    log = [first, later(first, 5, "d" * 64, "refused"), replaced, later(replaced, 6, "e" * 64, "refused")]
    assert [one["number"] for one in about_run(log, OURS)] == [3, 4, 6]
    assert standing(log, OURS).startswith("No model of this run is champion; version 4 (r1) of another run is, since")
    assert "<details open>" in section(log, OURS)  # why something was refused is not hidden


def test_without_decisions_it_says_so() -> None:
    assert "No model is champion." in section([], OURS)
    assert "cannot be read: decision 2 &lt;is&gt; broken" in section([], OURS, "decision 2 <is> broken")


def test_the_section_stands_behind_the_head_of_the_page() -> None:
    assert with_section("<header>a</header>\n<p>b", "S") == "<header>a</header>\nS<p>b"
    assert with_section("<p>b", "S") == "<p>bS"


def test_a_decision_that_asked_nobody_is_shown_without_answers() -> None:
    entry = decision()
    del entry["verdict"]["approval"]
    text = section([entry], OURS)
    assert "Decision 3: promote version 3 (r3): done" in text
    assert "signed by" not in text
