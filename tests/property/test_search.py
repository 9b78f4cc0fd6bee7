"""Searches: which shapes are tried, and which is taken after all were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import write_planned
from tasks.errors import ParamsError
from tasks.files import read_json, write_json
from tasks.models.architectures import adapter_of
from tasks.models.shapes import AXES
from tasks.params.rounds import Round
from tasks.pruning.planner import GOOD, Candidate, distance, most_different
from tasks.pruning.planning import Measure, candidates, possible_shapes, searched_shapes
from tasks.training.candidates import order_of, ranked, take_best
from tasks.training.metrics import CLOSEST
from tests.families import CONFIGS

TRAINING = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 1.0, "learning_rate": 1.0e-4}
sizes = st.fixed_dictionaries({axis: st.integers(1, 50) for axis in AXES})
losses = st.lists(st.tuples(sizes, st.floats(0.0, 10.0)), min_size=1, max_size=30, unique_by=lambda one: str(one[0]))
values = st.dictionaries(st.integers(1, 16), st.sampled_from([0.0, 0.1, 0.2, 0.5, 3.0]), min_size=2)


def found_of(drawn: list[tuple[dict[str, int], float]]) -> list[Candidate]:
    return sorted((Candidate(shape, 1, loss) for shape, loss in drawn), key=lambda one: one.loss)


@given(drawn=losses, count=st.integers(2, 8))
def test_the_candidates_are_good_and_the_least_lost_is_the_first(drawn: list[Any], count: int) -> None:
    found = found_of(drawn)
    chosen = most_different(found, count)
    assert len(chosen) == min(count, len(found))
    assert chosen[0] == found[0]
    assert len({found.index(one) for one in chosen}) == len(chosen)
    assert most_different(found, count + 3)[:count] == chosen, "another count gives tried shapes other numbers"
    good = [one for one in found if one.loss <= found[0].loss + GOOD]
    assert all(one in (good if len(good) >= count else found[:count]) for one in chosen)
    assert most_different(found, count) == chosen


@given(drawn=losses)
def test_the_second_candidate_is_the_one_farthest_from_the_first(drawn: list[Any]) -> None:
    found = found_of(drawn)
    good = [one for one in found if one.loss <= found[0].loss + GOOD]
    if len(good) < 2:
        return
    [first, second] = most_different(found, 2)
    assert distance(first.shape, second.shape) == max(distance(first.shape, one.shape) for one in good)


@given(first=sizes, second=sizes)
def test_a_distance_is_zero_for_equal_shapes_alone_and_the_same_both_ways(first: Any, second: Any) -> None:
    assert (distance(first, second) == 0.0) == (first == second)
    assert distance(first, second) == pytest.approx(distance(second, first))


@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=5)
@given(share=st.floats(0.3, 0.8))
def test_every_candidate_meets_the_budget_and_shares_the_vocabulary(family: str, share: float) -> None:
    config = CONFIGS[family]
    adapter = adapter_of(config)
    limit = int(share * adapter.count_parameters(config, adapter.shape(config), 2)["total"])
    target = Round(**TRAINING, params_total=limit, search={"candidates": 3, "transfer_rows": 10, "keep": 1})
    measure = Measure(config, 2, 16)
    try:
        found = searched_shapes("here", target, config, measure)
    except ParamsError:  # a coarse space has few shapes
        return
    assert found[0] == candidates("here", target, config, measure)[0]
    assert len({json.dumps(one.shape, sort_keys=True) for one in found}) == 3
    assert len({one.shape["vocabulary"] for one in found}) == 1
    assert all(0.95 * limit <= one.size <= limit and adapter.refusal(config, one.shape) is None for one in found)
    assert possible_shapes("here", target, config, measure) == [one.shape for one in found]


def test_too_many_candidates_are_refused_with_how_many_there_are() -> None:
    config = CONFIGS["bert"]
    held = {"hidden": 8, "heads": 1, "layers": 1}
    target = Round(**TRAINING, **held, params_total=2000, search={"candidates": 16, "transfer_rows": 10, "keep": 1})
    with pytest.raises(ParamsError, match=r"here.search.candidates: 16 are asked for, and \d shapes meet the budget"):
        searched_shapes("here", target, config, Measure(config, 2, 16))


@given(short=values, data=st.data())
def test_the_best_after_the_short_training_are_finished_and_the_best_of_those_is_taken(
    short: dict[int, float], data: st.DataObject
) -> None:
    numbers = sorted(short)
    full = {number: data.draw(st.sampled_from([0.0, 0.1, 0.4])) for number in numbers}
    keep = data.draw(st.integers(1, len(numbers) - 1))
    order = ranked(short)
    assert sorted(order) == numbers
    assert [short[number] for number in order] == sorted(short.values())
    kept = order[:keep]
    assert max(short[number] for number in kept) <= min(short[number] for number in order[keep:])
    assert full[ranked({number: full[number] for number in kept})[0]] == min(full[number] for number in kept)


def trained(folder: Path, number: int, kl: float) -> None:
    """Write what a training of a candidate leaves."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights").write_text(str(number), encoding="utf-8")
    (folder / "steps.jsonl").write_text("", encoding="utf-8")
    write_json(folder / "summary.json", {"steps": 1, "tokens": 1, f"best_{CLOSEST}": kl, "model_sha256": str(number)})


def test_the_record_of_a_search_says_how_all_ranked(tmp_path: Path) -> None:
    losses = {1: 0.1, 2: 0.3, 3: 0.2}
    planned = [{"candidate": n, "shape_after": {"layers": n}, "params_total": n, "loss": loss} for n, loss in losses.items()]
    place, out = tmp_path / "search", tmp_path / "out"
    for number, kl in {1: 0.9, 2: 0.5, 3: 0.4}.items():
        trained(place / "tried" / str(number), number, kl)
    assert order_of(place / "tried", planned) == [3, 2, 1]
    for at, (number, kl) in enumerate({3: 0.2, 2: 0.1}.items(), start=1):
        trained(place / "finished" / str(at), number, kl)
    record = take_best(planned, 2, place, out)
    assert record["chosen"] == 2
    assert [(one["rank_before"], one["rank_after"]) for one in record["candidates"]] == [(1, 3), (3, 2), (2, 1)]
    assert [one["finished"] is None for one in record["candidates"]] == [True, False, False]
    assert (out / "model/weights").read_text(encoding="utf-8") == "2"
    assert read_json(out / "search.json") == record
    assert sorted(path.name for path in (out / "search").iterdir()) == [
        "finished-2.jsonl",
        "finished-3.jsonl",
        "short-1.jsonl",
        "short-2.jsonl",
        "short-3.jsonl",
    ]


def test_what_a_larger_search_has_left_goes(tmp_path: Path) -> None:
    for name in ("tried/1", "tried/2", "tried/3", "finished/1", "finished/2"):
        trained(tmp_path / name, 1, 0.1)
    write_planned(tmp_path / "planned.json", candidates=2, keep=1)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
    assert left == ["finished/1", "tried/1", "tried/2"]
    write_planned(tmp_path / "planned.json")
    assert read_json(tmp_path / "planned.json") == {"candidates": 0, "keep": 0}
    assert list(tmp_path.glob("*/*")) == []
