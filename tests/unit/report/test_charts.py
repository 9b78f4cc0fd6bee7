"""Charts and number formats keep to their box, whatever the numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report.charts import Point, curve, front, thinned
from tasks.report.parts import count, interval, milliseconds, percent, size

SHARE = st.floats(0.0, 1.0)
INTERVAL = st.lists(SHARE, min_size=3, max_size=3).map(
    lambda ends: dict(zip(("low", "value", "high"), sorted(ends), strict=True))
)
POINT = st.builds(
    Point,
    st.just("r<1>"),
    st.floats(1e2, 1e12),
    INTERVAL,
    st.one_of(st.none(), st.floats(0.01, 1e4)),
    st.one_of(st.none(), INTERVAL),
    st.just("round"),
)


def _vertical(svg: str) -> list[float]:
    return [float(value) for value in re.findall(r'\b(?:cy|y1|y2)="(-?[\d.]+)"', svg)]


@given(st.lists(POINT, min_size=1, max_size=6), st.one_of(st.none(), SHARE), st.sampled_from([358, 980]))
def test_the_front_stays_in_its_box(points: list[Point], rival: float | None, width: int) -> None:
    svg = front(points, ("TF-IDF", rival) if rival is not None else None, width, "test")
    assert "nan" not in svg
    assert "r<1>" not in svg
    assert all(0 <= y <= 400 for y in _vertical(svg))
    assert all(0 <= float(x) <= width for x in re.findall(r'cx="(-?[\d.]+)"', svg))


@given(st.lists(st.tuples(st.integers(0, 10**5), st.floats(0, 100)), max_size=300), st.lists(SHARE, max_size=5))
def test_curves_stay_in_their_box(loss: list[tuple[int, float]], accuracy: list[float]) -> None:
    svg = curve("r1", thinned([(float(s), v) for s, v in sorted(loss)]), [(100.0 * i, v) for i, v in enumerate(accuracy)])
    assert "nan" not in svg
    assert all(0 <= y <= 232 for y in _vertical(svg))


def test_a_model_taken_as_it_is_has_no_curve() -> None:
    assert "none: taken as it is" in curve("teacher", [], [])


def test_thinning_keeps_short_series_and_the_mean() -> None:
    short = [(1.0, 2.0), (2.0, 3.0)]
    assert thinned(short) == short
    long = [(float(i), 1.0) for i in range(1000)]
    assert len(thinned(long)) <= 120
    assert {value for _, value in thinned(long)} == {1.0}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count(22_713_986), "22.7 M"),
        (count(512), "512"),
        (count(999_900), "1000 k"),
        (count(1.4e9), "1.4 G"),
        (size(91_600_000), "91.6 MB"),
        (milliseconds(1.94), "1.94 ms"),
        (milliseconds(1234.0), "1,234 ms"),
        (percent(0.9932), "99.3\N{NO-BREAK SPACE}%"),
        (count(None), "\N{EN DASH}"),
        (interval(None), "\N{EN DASH}"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
