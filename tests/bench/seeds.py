"""What several runs of the same params, each with a `seed` of its own, say together: the share of the teacher's accuracy.

A seed draws the teacher's head and the order of its rows and of every student's, so each run has a teacher of its own, and
the sets are the same. One run alone says little: on a thousand rows two equally good trainings differ by a point.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.errors import UserError
from tasks.measuring.predictions import read_rows
from tasks.measuring.quality import interval, resample_counts
from tasks.params.base import Params
from tasks.params.classification import ClassificationParams
from tasks.params.file import load_params

HOME: Final = ("validation", "test")  # their accuracies are averaged, each counts alike
MAY_DIFFER: Final = ("seed", "runtime")  # sections of the params; the runs share all others
Right = dict[str, NDArray[np.float64]]  # set -> 1 for each row that a model is right about, shape (N,)


def measure(runs: list[Path]) -> dict[str, Any]:
    """Return the runs' seeds and, by round that all have evaluated, the shares (of 1) of each run, their mean and its interval.

    The interval is of the mean over these runs, by resampling rows, the same for all models and runs: it says what other rows
    would have shown of these trainings. How trainings differ is what `shares` shows; `away` has those on the other sets.
    Raises UserError if the runs are not alike.
    """
    params = _alike(runs)
    rounds = [name for name in params[0].rounds if all((_evaluated(run, name) / "quality.json").exists() for run in runs)]
    if not rounds:
        raise UserError(f"{runs[0]}: no round is evaluated in every run; `compactlm run` there first")
    rows: dict[str, list[str]] = {}
    teachers = [_right(_evaluated(run, "teacher"), rows) for run in runs]
    section = params[0].evaluate
    found: dict[str, Any] = {
        "seeds": [one.seed for one in params],
        "rows": {name: len(ids) for name, ids in rows.items()},
        "confidence": section.confidence,
        "teacher": [_accuracies(one) for one in teachers],
        "rounds": {},
    }
    for name in rounds:
        students = [_right(_evaluated(run, name), rows) for run in runs]
        value = float(np.mean([share_of(mine, theirs) for mine, theirs in zip(students, teachers, strict=True)]))
        found["rounds"][name] = {
            "params_total": json.loads((_evaluated(runs[0], name) / "cost.json").read_text())["params_total"],
            "shares": [round(float(share_of(mine, theirs)), 4) for mine, theirs in zip(students, teachers, strict=True)],
            "mean": interval(value, mean_shares(students, teachers, section.bootstrap_resamples), section.confidence),
            "accuracies": [_accuracies(one) for one in students],
            "away": {of: _shares_away(of, students, teachers) for of in rows if of not in HOME},
        }
    return found


def share_of(student: Right, teacher: Right) -> float:
    """Return the mean of the student's accuracies on the home sets over that of the teacher's."""
    mine, theirs = (sum(float(one[name].mean()) for name in HOME) for one in (student, teacher))
    return mine / theirs


def _shares_away(name: str, students: list[Right], teachers: list[Right]) -> list[float]:
    """Return the share of each run on another set than the home sets."""
    return [round(float(mine[name].mean() / theirs[name].mean()), 4) for mine, theirs in zip(students, teachers, strict=True)]


def mean_shares(students: list[Right], teachers: list[Right], resamples: int) -> NDArray[np.float64]:
    """Return the mean over runs of `share_of` in each resample of the rows of every set, shape (resamples,)."""
    sums_RM = np.sum([_drawn([one[of] for one in (*students, *teachers)], resamples, n) for n, of in enumerate(HOME)], axis=0)
    return np.asarray((sums_RM[:, : len(students)] / sums_RM[:, len(students) :]).mean(axis=1))


def _drawn(right: list[NDArray[np.float64]], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the accuracy of each of M models in each of R resamples of a set's rows, shape (R, M)."""
    right_NM = np.stack(right, axis=1)
    return np.concatenate([counts_RN @ right_NM / len(right_NM) for counts_RN in resample_counts(len(right_NM), resamples, seed)])


def _alike(runs: list[Path]) -> list[ClassificationParams]:
    """Return the params of the runs; UserError unless they are of one classification and have a seed each."""
    params = [load_params(run / "params.yaml") for run in runs]
    if len({one.seed for one in params}) < len(params):
        raise UserError(f"--runs: the seeds are {[one.seed for one in params]}; every run needs a seed of its own")
    for run, one in zip(runs, params, strict=True):
        if not isinstance(one, ClassificationParams):
            raise UserError(f"{run / 'params.yaml'}: task: {one.task}; seeds are compared of classification")
        differing = [key for key, value in _shared(one).items() if value != _shared(params[0]).get(key)]
        if differing:
            raise UserError(f"{run / 'params.yaml'}: {', '.join(differing)} not as in {runs[0]}; allowed: another seed, runtime")
    return [one for one in params if isinstance(one, ClassificationParams)]


def _shared(params: Params) -> dict[str, Any]:
    return {key: value for key, value in params.model_dump().items() if key not in MAY_DIFFER}


def _evaluated(run: Path, name: str) -> Path:
    return run / "artifacts" / "rounds" / name / "evaluated"


def _right(evaluated: Path, rows: dict[str, list[str]]) -> Right:
    """Return which rows a model is right about, and keep their ids in `rows`; UserError if a set has other rows there."""
    found = {}
    for path in sorted((evaluated / "predictions").glob("*.parquet")):
        table = read_rows(path)
        if table is None:
            raise UserError(f"{path}: not predictions; evaluate again: `compactlm run`")
        ids = [str(row) for row in table["row_id"]]
        if rows.setdefault(path.stem, ids) != ids:
            raise UserError(f"{path}: other rows than in the runs before it; these were not made from one data set")
        found[path.stem] = (table["prediction"] == table["label"]).astype(np.float64)
    missing = sorted(set(HOME) - set(found))
    if missing:
        raise UserError(f"{evaluated / 'predictions'}: no {missing[0]}.parquet; evaluate again: `compactlm run`")
    return found


def _accuracies(right: Right) -> dict[str, float]:
    return {name: round(float(of.mean()), 4) for name, of in right.items()}
