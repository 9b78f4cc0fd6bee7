"""A decision as markdown: what it shows, what it cannot be made to show, and that it fits where it goes."""

from __future__ import annotations

from typing import Any

from tasks.promotion.decision_page import as_markdown


def decision(rules: int = 2) -> dict[str, Any]:
    sentences = [f"accuracy on slice {number} is | 0.{number} <b>\nfine" for number in range(rules)]
    said = {"decision": "approve", "name": "ada", "at": "2026-01-02T00:00:00Z", "reason": "half | the size"}
    proposal = {"proposed_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-04T00:00:00Z"}
    return {
        "number": 3,
        "kind": "promote",
        "outcome": "done",
        "at": "2026-01-02T01:00:00Z",
        "actor": "Bob",
        "reason": "smaller",
        "sha256": "a" * 64,
        "previous_sha256": "b" * 64,
        "model": "toy",
        "candidate": {"version": "3", "round": "r3", "model_sha256": "c" * 64},
        "before": {"champion": None, "previous": None},
        "champion": {"version": "3", "round": "r3", "model_sha256": "c" * 64},
        "verdict": {
            "verdict": "pass",
            "sentence": "all is kept",
            "rules": [
                {"result": "pass" if at else "fail", "severity": "block", "sentence": one} for at, one in enumerate(sentences)
            ],
            "approval": {
                "state": "approved",
                "digest": "d" * 64,
                "proposal": proposal,
                "statements": [{"statement": said, "signature": ""}],
            },
        },
    }


def test_a_page_says_who_decided_what_on_which_grounds() -> None:
    page = as_markdown(decision())
    assert page.startswith("## Decision 3: promote version 3 (r3), done\n")
    assert "by Bob. all is kept" in page
    assert "| champion before | none | | |" in page
    assert "| fail | block | accuracy on slice 0 is \\| 0.0 \\<b\\> fine |" in page
    assert "- approve by ada at 2026-01-02T00:00:00Z: half \\| the size" in page
    assert f"`{'a' * 64}`" in page


def test_a_page_that_is_too_long_leaves_out_what_is_kept_and_then_the_end() -> None:
    page = as_markdown(decision(rules=200), limit=5000)
    assert len(page) <= 5000
    assert "slice 0" in page
    assert "199 more rules are kept." in page
    assert f"`{'a' * 64}`" in page
    assert len(as_markdown(decision(), limit=300)) == 300
