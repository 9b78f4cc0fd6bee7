"""The benchmark of several seeds: its shares, the interval of their mean, and runs that may not be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.errors import UserError
from tests.bench import seeds
from tests.bench.__main__ import main

REPOSITORY = Path(__file__).parents[3]
ROWS = {"validation": 40, "test": 20, "elsewhere": 10}
TEACHER = {"validation": 32, "test": 18, "elsewhere": 8}  # right rows: 0.8, 0.9 and 0.8
STUDENT = {"validation": 28, "test": 17, "elsewhere": 4}


def a_run(where: Path, seed: int, right: dict[str, dict[str, int]], **changes: Any) -> Path:
    """Write what the benchmark reads of a run: the first so many rows of each set are right, in models by name."""
    params = {**yaml.safe_load((REPOSITORY / "params.yaml").read_text()), "seed": seed, **changes}
    where.mkdir(parents=True)
    (where / "params.yaml").write_text(yaml.safe_dump(params))
    for name, counts in {"teacher": TEACHER, **right}.items():
        evaluated = where / "artifacts" / "rounds" / name / "evaluated"
        (evaluated / "predictions").mkdir(parents=True)
        (evaluated / "quality.json").write_text("{}")
        (evaluated / "cost.json").write_text(json.dumps({"params_total": 2_000_000}))
        for of, count in counts.items():
            hit = np.arange(ROWS[of]) < count
            pd.DataFrame(
                {
                    "row_id": [f"{of}{n}" for n in range(ROWS[of])],
                    "label": 1,
                    "prediction": hit.astype(int),
                    "logit_0": 0.0,
                    "logit_1": np.where(hit, 1.0, -1.0),
                    "slices": [["class:positive"]] * ROWS[of],
                }
            ).to_parquet(evaluated / "predictions" / f"{of}.parquet")
    return where


def test_a_share_is_of_the_mean_accuracy_of_both_home_sets_and_runs_count_alike(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "0", 0, {"r1": TEACHER, "r2": TEACHER}), a_run(tmp_path / "1", 1, {"r1": STUDENT})]
    found = seeds.measure(runs)
    assert found["seeds"] == [0, 1]
    assert list(found["rounds"]) == ["r1"]  # r2 is evaluated in one of them
    one = found["rounds"]["r1"]
    second = (28 / 40 + 17 / 20) / (32 / 40 + 18 / 20)
    assert one["shares"] == [1.0, pytest.approx(second, abs=1e-4)]
    assert one["mean"]["value"] == pytest.approx((1 + second) / 2, abs=1e-4)
    assert one["mean"]["low"] < one["mean"]["value"] < one["mean"]["high"]
    assert one["accuracies"][1] == {"validation": 0.7, "test": 0.85, "elsewhere": 0.4}
    assert one["away"] == {"elsewhere": [1.0, 0.5]}


def test_a_student_right_on_the_teachers_rows_has_an_interval_without_width(tmp_path: Path) -> None:
    """Rows are drawn for both models at once: what the teacher's rows are worth must cancel out."""
    runs = [a_run(tmp_path / str(seed), seed, {"r1": TEACHER}) for seed in (0, 1)]
    assert seeds.measure(runs)["rounds"]["r1"]["mean"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_sets_of_unequal_size_may_be_resampled_in_unequal_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    models = [{of: (rng.random(rows) < 0.8).astype(float) for of, rows in (("validation", 1500), ("test", 700))} for _ in "1234"]
    whole = seeds.mean_shares(models[:2], models[2:], 500)
    monkeypatch.setattr("tasks.measuring.quality.CHUNK_COUNTS", 20_000)
    assert seeds.mean_shares(models[:2], models[2:], 500) == pytest.approx(whole)
    # sqrt(0.2 / 0.8 * (1/1500 + 1/700) / 4 * 2 / 2) is 1.1 %: two models a ratio, two ratios a mean, half of a sum each set
    assert 0.005 < whole.std() < 0.02
    assert whole.mean() == pytest.approx(
        np.mean([seeds.share_of(a, b) for a, b in zip(models[:2], models[2:], strict=True)]), abs=0.003
    )


def test_runs_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    first = a_run(tmp_path / "0", 0, {"r1": TEACHER})
    with pytest.raises(UserError, match="every run needs a seed of its own"):
        seeds.measure([first, a_run(tmp_path / "same", 0, {"r1": TEACHER})])
    prune = {**yaml.safe_load((REPOSITORY / "params.yaml").read_text())["prune"], "criterion": "magnitude_l2"}
    with pytest.raises(UserError, match="prune not as in"):
        seeds.measure([first, a_run(tmp_path / "prune", 1, {"r1": TEACHER}, prune=prune)])
    with pytest.raises(UserError, match="no round is evaluated in every run"):
        seeds.measure([first, a_run(tmp_path / "none", 1, {})])
    with pytest.raises(UserError, match=r"no test\.parquet"):
        seeds.measure([first, a_run(tmp_path / "set", 1, {"r1": {"validation": 4}})])
    other = a_run(tmp_path / "rows", 1, {"r1": TEACHER})
    path = other / "artifacts" / "rounds" / "r1" / "evaluated" / "predictions" / "test.parquet"
    rows = pd.read_parquet(path)
    rows.iloc[::-1].to_parquet(path)
    with pytest.raises(UserError, match="other rows than in the runs before it"):
        seeds.measure([first, other])
    path.write_text("")
    with pytest.raises(UserError, match="not predictions"):
        seeds.measure([first, other])
    (tmp_path / "causal").mkdir()
    (tmp_path / "causal" / "params.yaml").write_text((REPOSITORY / "params" / "gpt2-tiny.yaml").read_text())
    with pytest.raises(UserError, match="seeds are compared of classification"):
        seeds.measure([a_run(tmp_path / "9", 9, {"r1": TEACHER}), tmp_path / "causal"])


def test_the_table_has_a_column_for_each_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(a_run(tmp_path / str(seed), seed, {"r1": STUDENT})) for seed in (3, 4)]
    assert main(["seeds", "--runs", *runs]) == 0
    printed = capsys.readouterr().out
    assert "seed 3" in printed
    assert "91.2%" in printed  # of home
    assert "50.0%" in printed  # of elsewhere
    with pytest.raises(SystemExit):
        main(["seeds", "--runs", runs[0]])
    assert "two or more finished runs" in capsys.readouterr().err
