"""The report's section on the checks of the data."""

from __future__ import annotations

from tasks.report.page import data_checks
from tasks.report.story import Story


def test_every_expectation_is_shown_with_what_was_asked_and_seen() -> None:
    expectations = [
        {
            "suite": "rows",
            "name": "empty_texts",
            "expectation": "expect_column_values_to_be_between",
            "arguments": {"column": "characters", "min_value": 1},
            "observed": {"element_count": 4200, "unexpected_count": 3},
            "success": False,
        },
        {
            "suite": "rows",
            "name": "labels <b>",
            "expectation": "expect_column_values_to_be_in_set",
            "arguments": {"column": "label", "value_set": ["0", "1"]},
            "observed": {"observed_value": 0.123456},
            "success": True,
        },
    ]
    shown = data_checks(Story("m", 0, {}, {}, {}, {}, {"expectations": expectations}, {}, []))
    assert "3 of 4,200 unexpected" in shown
    assert "column characters, min value 1" in shown
    assert "column label, value set 0, 1" in shown
    assert "0.1235" in shown
    assert "labels &lt;b&gt;" in shown
    assert (shown.count('class="mark fail"'), shown.count('class="mark pass"')) == (1, 1)
