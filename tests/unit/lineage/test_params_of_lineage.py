"""Params as a person wrote them against those of a receipt, which also has what was left out."""

from __future__ import annotations

import pytest

from tasks.lineage.chain import agree

RECORDED = {"gates": [{"metric": "accuracy", "severity": "block"}], "seed": 0}


@pytest.mark.parametrize(
    ("written", "filled", "expected"),
    [
        ({"gates": [{"metric": "accuracy"}], "seed": 0}, RECORDED, True),
        # of another version: nothing could be filled in
        ({"gates": [{"metric": "accuracy"}], "seed": 0}, {"gates": [{"metric": "accuracy"}], "seed": 0}, True),
        # this version has a key more than that of the receipt
        ({"gates": [{"metric": "accuracy"}], "seed": 0}, {**RECORDED, "prove": "kept"}, True),
        ({"gates": [{"metric": "churn"}], "seed": 0}, RECORDED, False),
        ({"gates": [], "seed": 0}, {"gates": [], "seed": 0}, False),
        ({"gates": [{"metric": "accuracy"}], "seed": 1}, {**RECORDED, "seed": 1}, False),
        ({**RECORDED, "more": 1}, {**RECORDED, "more": 1}, False),
        # left out, and what is filled in is not what the stage read
        ({"gates": [{"metric": "accuracy"}]}, {**RECORDED, "seed": 1}, False),
    ],
)
def test_params_agree_when_what_was_written_is_what_was_read(written: object, filled: object, expected: bool) -> None:
    assert agree(RECORDED, written, filled) is expected
