"""What may be handed to a gate of a language model, and the verdict it must give: a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.gates.causal_lm import gather_blocks
from tasks.gates.evidence import Model
from tasks.gates.judge import judge
from tasks.gates.rules import Rule
from tasks.measuring.perplexity import repetition_rate
from tasks.measuring.predictions import SAMPLES
from tests.gate_evidence import cell
from tests.quality_builder import quality_set

BLOCKS, TOKENS = 60, 20
PLAIN = Rule("perplexity", "test", "overall", "teacher", "max_ratio", 1.2, "block")
PROVEN = replace(PLAIN, test="paired_bootstrap", confidence=0.95, min_support=50, resamples=1000)
NEWS = replace(PROVEN, set="news", threshold=1.5)
CHAMPION, PARENT = replace(PROVEN, versus="champion"), replace(PROVEN, versus="parent")
ABSOLUTE = Rule("perplexity", "test", "overall", None, "max", 30.0, "block")
AGREEMENT = Rule("agreement", "test", "overall", None, "min", 0.5, "block")
REPEATS = Rule("repetition_rate", "test", "overall", None, "max", 0.7, "block")
SETS = ("test", "news")

Frames = dict[str, pd.DataFrame]


@dataclass
class Case:
    """Evaluations as they are found, file by file (`who/set`), what quality.json says, and the rules that are asked."""

    rules: list[Rule]
    frames: Frames
    reports: dict[str, Any]


def evaluation(ratio: float, varies: float, seed: int) -> tuple[Frames, dict[str, Any]]:
    """Return the files of a model whose perplexity is `ratio` times a teacher's of about 20, and its quality.json."""
    hard, rng = np.random.default_rng(0), np.random.default_rng(seed)
    frames, sets = {}, {}
    for name in SETS:
        nats = TOKENS * (hard.normal(3.0, 0.4, BLOCKS) + math.log(ratio) + rng.normal(0.0, varies, BLOCKS))
        choices = [np.where(rng.random(TOKENS) < 0.9, 7, 8).astype(np.int32) for _ in range(BLOCKS)]
        frames[name] = pd.DataFrame(
            {
                "row_id": [f"{name}-{row:04d}" for row in range(BLOCKS)],
                "tokens": [TOKENS] * BLOCKS,
                "bytes": [4 * TOKENS] * BLOCKS,
                "nll_nats": nats,
                "choices": choices,
                "agreed": [0] * BLOCKS,
            }
        )
    frames[SAMPLES] = pd.DataFrame({"sample": [np.array([1, 2, 3, 4] * 4 + [row] * 8) for row in range(8)]})
    rates = [repetition_rate(one.tolist()) for one in frames[SAMPLES]["sample"]]
    for name in SETS:
        sets[name] = quality_set({"overall": told_of(frames[name])}, BLOCKS, name)
    sets["test"]["variants"] = {"greedy": {"repetition_rate": {"value": round(float(np.mean(rates)), 6)}}}
    return frames, sets


def told_of(of: pd.DataFrame) -> dict[str, Any]:
    return {"perplexity": {"value": float(np.exp(min(700.0, of["nll_nats"].sum() / max(1, of["tokens"].sum()))))}}


def honest(*rules: Rule, ratio: float = 1.1, varies: float = 0.05) -> Case:
    case = Case(list(rules), {}, {})
    models = {"student": (ratio, varies), "teacher": (1.0, 0.0), "parent": (1.05, 0.02), "champion": (1.05, 0.02)}
    for seed, (who, (factor, spread)) in enumerate(models.items(), start=1):
        frames, sets = evaluation(factor, spread, seed)
        case.frames |= {f"{who}/{name}": one for name, one in frames.items()}
        case.reports[who] = sets
    mine, theirs = (np.concatenate(case.frames[f"{who}/test"]["choices"].tolist()) for who in ("student", "teacher"))
    case.reports["student"]["test"]["slices"]["overall"]["agreement"] = {"value": float((mine == theirs).mean())}
    return case


def verdict(case: Case, folder: Path) -> dict[str, Any]:
    for name, of in case.frames.items():
        (folder / name).parent.mkdir(exist_ok=True)
        of.to_parquet(folder / f"{name}.parquet", index=False)
    models = {who: Model(who, sets, folder / who) for who, sets in case.reports.items()}
    evidence, pairs, names = gather_blocks(case.rules, models)
    return judge(case.rules, evidence, pairs, names)


def change(file: str, edit: Callable[[pd.DataFrame], pd.DataFrame], *rules: Rule) -> Callable[[], Case]:
    """Return a case in which one file is not what it was; quality.json tells of the honest one."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        case.frames[file] = edit(case.frames[file])
        return case

    return made


def told(who: str, edit: Callable[[dict[str, Any]], Any], *rules: Rule) -> Callable[[], Case]:
    """Return a case in which a quality.json is not what it was."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        edit(case.reports[who])
        return case

    return made


def without(what: str, name: str, *rules: Rule) -> Callable[[], Case]:
    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        del getattr(case, what)[name]
        return case

    return made


def both(edit: Callable[[pd.DataFrame], pd.DataFrame], *rules: Rule) -> Callable[[], Case]:
    """Return a case in which every side was changed alike, reports too: the sides agree, and are still wrong."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        for who, sets in case.reports.items():
            of = edit(case.frames[f"{who}/test"])
            case.frames[f"{who}/test"] = of
            sets["test"] |= {"rows": len(of), "slices": {"overall": told_of(of) if len(of) else {}}}
        return case

    return made


def value(name: str, number: Any, of: str = "test") -> Callable[[dict[str, Any]], None]:
    return lambda sets: sets[of]["slices"]["overall"].update({name: {"value": number}})


def sampled(number: Any) -> Callable[[dict[str, Any]], None]:
    return lambda sets: sets["test"]["variants"].update(greedy={"repetition_rate": {"value": number}})


TABLE: list[tuple[str, Callable[[], Case], str, str]] = [
    # honest evidence
    ("shown on both domains", lambda: honest(PROVEN, NEWS), "pass", "with 95 % confidence at most 11"),
    ("measured, not shown", lambda: honest(PLAIN), "pass", "% of the teacher's"),
    ("itself", lambda: honest(PROVEN, ratio=1.0, varies=0.0), "pass", "100.0 % of the teacher's"),
    ("better than the teacher", lambda: honest(PROVEN, ratio=0.9), "pass", "on 60 blocks of 1,200 tokens"),
    ("worse than allowed", lambda: honest(PROVEN, ratio=1.3), "fail", "at most 120 % is asked"),
    ("kept by luck", lambda: honest(PROVEN, ratio=1.15, varies=0.3), "hold", "which is not shown"),
    ("kept by luck, plain rule", lambda: honest(PLAIN, ratio=1.15, varies=0.3), "pass", "% is asked"),
    ("one domain kept, one broken", lambda: honest(PROVEN, replace(NEWS, threshold=1.02)), "fail", "perplexity on news"),
    (
        "not shown is no harm",
        lambda: honest(replace(PROVEN, prove="broken", threshold=1.1), ratio=1.12, varies=0.3),
        "pass",
        "at least",
    ),
    ("harm is shown", lambda: honest(replace(PROVEN, prove="broken"), ratio=1.5), "fail", "at least"),
    ("against the champion", lambda: honest(CHAMPION), "pass", "the champion's"),
    ("worse than the champion", lambda: honest(CHAMPION, ratio=1.4), "fail", "the champion's"),
    ("against the parent", lambda: honest(PARENT), "pass", "its parent's"),
    ("an absolute bound", lambda: honest(ABSOLUTE), "pass", "at most 30.000 is asked"),
    ("an absolute bound broken", lambda: honest(ABSOLUTE, ratio=2.0), "fail", "at most 30.000 is asked"),
    ("agreement", lambda: honest(AGREEMENT), "pass", "agreement on test"),
    ("repetition", lambda: honest(REPEATS), "pass", "share of repeated 4-grams"),
    ("repetition above the bound", lambda: honest(replace(REPEATS, threshold=0.2)), "fail", "at most 0.200 is asked"),
    ("a diverged student", lambda: honest(PROVEN, ratio=1e200), "fail", "perplexity on test"),
    # a bad number
    ("told as NaN", told("student", value("perplexity", math.nan)), "hold", "says nan"),
    ("told as infinity", told("student", value("perplexity", math.inf)), "hold", "says inf"),
    ("told as text", told("student", value("perplexity", "20")), "hold", "says '20'"),
    ("told too low", told("student", value("perplexity", 12.0)), "hold", "says 12.0"),
    ("told too low, plain rule", told("student", value("perplexity", 12.0), PLAIN), "hold", "says 12.0"),
    ("teacher told too high", told("teacher", value("perplexity", 40.0)), "hold", "quality.json of teacher says 40.0"),
    ("champion told too high", told("champion", value("perplexity", 40.0), CHAMPION), "hold", "of champion says 40.0"),
    ("the other domain told too low", told("student", value("perplexity", 12.0, "news"), NEWS), "hold", "says 12.0"),
    ("nats NaN", change("student/test", cell("nll_nats", math.nan)), "hold", "impossible"),
    ("nats NaN, plain rule", change("student/test", cell("nll_nats", math.nan), PLAIN), "hold", "impossible"),
    ("nats infinite", change("student/test", cell("nll_nats", math.inf)), "hold", "impossible"),
    ("nats below zero", change("student/test", cell("nll_nats", -1.0)), "hold", "impossible"),
    ("teacher's nats NaN", change("teacher/test", cell("nll_nats", math.nan)), "hold", "teacher has a likelihood"),
    ("nats as text", change("student/test", lambda of: of.assign(nll_nats="60")), "hold", "impossible"),
    ("threshold NaN", lambda: honest(replace(PROVEN, threshold=math.nan)), "hold", "is not a finite number"),
    ("threshold zero", lambda: honest(replace(PROVEN, threshold=0.0)), "hold", "is no ratio"),
    ("nats made smaller", change("student/test", lambda of: of.assign(nll_nats=of["nll_nats"] * 0.9)), "hold", "says"),
    # missing
    ("no student blocks", without("frames", "student/test"), "hold", "there are no predictions"),
    ("no teacher blocks", without("frames", "teacher/test"), "hold", "there are no predictions"),
    ("no teacher", without("reports", "teacher"), "hold", "there is no evaluation of the teacher"),
    ("champion deleted", without("reports", "champion", CHAMPION), "hold", "no evaluation of the champion"),
    ("champion without blocks", without("frames", "champion/test", CHAMPION), "hold", "no predictions of champion"),
    ("domain not measured", told("student", lambda sets: sets.pop("news"), NEWS), "hold", "has no set 'news'"),
    ("no digest of the blocks", told("student", lambda sets: sets["test"].pop("rows_sha256")), "hold", "no rows_sha256"),
    ("metric not told", told("student", lambda sets: sets["test"]["slices"].clear()), "hold", "says None"),
    ("a column missing", change("student/test", lambda of: of.drop(columns="nll_nats")), "hold", "there are no predictions"),
    # too few, others, twice
    ("no blocks", both(lambda of: of.iloc[:0]), "hold", "are empty"),
    ("fewer than asked", both(lambda of: of.iloc[:40]), "hold", "40 rows are too few"),
    ("too few for an interval", both(lambda of: of.iloc[:20], replace(PROVEN, min_support=5)), "hold", "20 blocks are too few"),
    ("other order", change("student/test", lambda of: of.iloc[::-1]), "hold", "different blocks"),
    ("hard blocks left out", change("student/test", lambda of: of.iloc[5:]), "hold", "different blocks"),
    ("of another set", told("student", lambda sets: sets["test"].update(rows_sha256="other")), "hold", "different blocks"),
    ("a number of blocks that is not so", told("student", lambda sets: sets["test"].update(rows=99)), "hold", "different bl"),
    ("easy blocks twice", both(lambda of: pd.concat([of, of.iloc[:9]])), "hold", "counts more than once"),
    ("more tokens told", change("student/test", lambda of: of.assign(tokens=of["tokens"] * 2)), "hold", "different blocks"),
    ("blocks without tokens", both(lambda of: of.assign(tokens=0)), "hold", "no number of tokens"),
    ("tokens as shares", both(lambda of: of.assign(tokens=of["tokens"] + 0.5)), "hold", "no number of tokens"),
    # choices and samples
    (
        "choices left out",
        change("student/test", cell("choices", np.array([7], dtype=np.int32)), AGREEMENT),
        "hold",
        "not one choice for each token",
    ),
    ("agreement told too high", told("student", value("agreement", 1.0), AGREEMENT), "hold", "says 1.0"),
    ("repetition told too low", told("student", sampled(0.01), REPEATS), "hold", "says 0.01"),
    ("repetition told as NaN", told("student", sampled(math.nan), REPEATS), "hold", "says nan"),
    ("repetition not told", told("student", lambda sets: sets["test"]["variants"].clear(), REPEATS), "hold", "no samples"),
    ("repetition of a set without samples", lambda: honest(replace(REPEATS, set="news")), "hold", "no samples of student"),
    ("samples missing", without("frames", f"student/{SAMPLES}", REPEATS), "hold", "no stored samples"),
    ("samples empty", change(f"student/{SAMPLES}", lambda of: of.iloc[:0], REPEATS), "hold", "no stored samples"),
    (
        "repetitive samples left out",
        change(f"student/{SAMPLES}", lambda of: of.iloc[:3].assign(sample=[np.arange(30)] * 3), REPEATS),
        "hold",
        "says",
    ),
    ("a sample of three tokens", change(f"student/{SAMPLES}", cell("sample", np.array([1, 2, 3])), REPEATS), "hold", "no text"),
    (
        "samples that are words",
        change(f"student/{SAMPLES}", lambda of: of.assign(sample="so it goes"), REPEATS),
        "hold",
        "no text",
    ),
    ("fewer samples than asked", lambda: honest(replace(REPEATS, min_support=9)), "hold", "8 rows are too few"),
]


def test_no_two_rows_have_one_name() -> None:
    assert len({name for name, *_ in TABLE}) == len(TABLE) >= 40


@pytest.mark.parametrize(("make", "expected", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_verdict_on_blocks(make: Callable[[], Case], expected: str, words: str, tmp_path: Path) -> None:
    found = verdict(make(), tmp_path)
    said = [found["sentence"], *[one["sentence"] for one in found["rules"]]]
    assert found["verdict"] == expected, said
    assert any(words in one for one in said), said


def test_a_file_that_is_no_parquet_is_a_hold_too(tmp_path: Path) -> None:
    case = honest(PROVEN)
    del case.frames["student/test"]
    (tmp_path / "student").mkdir()
    (tmp_path / "student/test.parquet").write_bytes(b"PAR1 not really")
    assert verdict(case, tmp_path)["verdict"] == "hold"
