"""A budget of measured latency: what is timed, what the plan makes of it, and that a run reads the record alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.errors import ParamsError
from tasks.measuring.subject import Timing
from tasks.models.architectures import adapter_of
from tasks.models.shapes import AXES
from tasks.params.file import apply_overrides, load_params
from tasks.params.rounds import Round
from tasks.pruning import speed
from tasks.pruning.planner import lost
from tasks.pruning.planning import Measure, candidates, target_shape
from tasks.pruning.speed import measure_front
from tests.families import CONFIGS

ROOT = Path(__file__).resolve().parents[3]
TRAINING = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 1.0, "learning_rate": 1.0e-4}
CONFIG = CONFIGS["bert"]
MEASURE = Measure(CONFIG, 2, 16)
LARGE = {"vocabulary": 80, "hidden": 24, "heads": 3, "ffn": 40, "layers": 3}
SMALL = {"vocabulary": 70, "hidden": 16, "heads": 2, "ffn": 24, "layers": 2}


def flops(shape: dict[str, int]) -> int:
    adapter = adapter_of(CONFIG)
    return int(adapter.flops_per_example(adapter.resized(CONFIG, shape), MEASURE.tokens, MEASURE.classes))


def clock(shape: dict[str, int]) -> dict[str, float]:
    """Stands for a machine on which time is the FLOPs and something for each layer."""
    times = [flops(one) / 1e5 + 0.1 * one["layers"] for one in (shape, adapter_of(CONFIG).shape(CONFIG))]
    return {"latency_ms": times[0], "teacher_latency_ms": times[1]}


def measured(*shapes: dict[str, Any], tokens: int = 16) -> dict[str, Any]:
    return {"tokens": tokens, "machine": "here", "shapes": [{**one, **clock(one)} for one in shapes]}


@pytest.mark.parametrize("wanted", [1.2, 2.0, 4.0])
@pytest.mark.parametrize("held", [{}, {"layers": 2}, {"vocabulary": 82}])
def test_the_bisection_finds_a_shape_that_is_fast_enough_and_loses_least(wanted: float, held: dict[str, int]) -> None:
    target = Round(**TRAINING, speedup=wanted, **held)
    timed = measure_front(target, CONFIG, MEASURE, clock)
    assert 0 < len(timed) <= speed.TRIES
    solved = Round(**TRAINING, **held, speedup=wanted, measured={"tokens": 16, "machine": "here", "shapes": timed})
    found = candidates("here", solved, CONFIG, MEASURE)
    assert all(one.shape[axis] == size for one in found for axis, size in held.items())
    taken = clock(found[0].shape)
    assert taken["teacher_latency_ms"] / taken["latency_ms"] >= wanted
    fast = [one for one in solved.measured.shapes if one.speedup >= wanted] if solved.measured else []
    assert found[0].loss == min(lost(adapter_of(CONFIG).shape(CONFIG), one.shape) for one in fast)


def test_the_shape_follows_from_the_record_alone() -> None:
    target = Round(**TRAINING, speedup=1.3, measured=measured(LARGE, SMALL))
    assert target_shape("here", target, CONFIG, MEASURE) == LARGE
    faster = Round(**TRAINING, speedup=3.0, measured=measured(LARGE, SMALL))
    assert target_shape("here", faster, CONFIG, MEASURE) == SMALL
    [only] = candidates("here", faster, CONFIG, MEASURE)
    assert only.size == round(1000 * clock(SMALL)["latency_ms"])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "rounds.r1.speedup: no shape is measured yet; run: compactlm measure r1"),
        ({"measured": measured(LARGE, tokens=32)}, "measured.tokens: measured with 32 tokens, and evaluate.latency_tokens is 16"),
        ({"measured": measured(LARGE)}, "the fastest of them is"),
        ({"measured": measured(SMALL), "layers": 1}, "0 of 1 measured shapes fit the parent and the axes that are held"),
    ],
)
def test_a_record_that_does_not_serve_is_refused_with_what_to_do(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as refused:
        target_shape("params.yaml: rounds.r1", Round(**TRAINING, speedup=3.0, **section), CONFIG, MEASURE)
    assert said in str(refused.value)
    assert "compactlm measure r1" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"ratio": 2.0, "measured": measured(LARGE)}, "measured: belongs to speedup"),
        ({"speedup": 2.0, "ratio": 2.0}, "ratio and speedup: one budget at a time"),
        ({"speedup": 2.0, "search": {"candidates": 3, "transfer_rows": 9, "keep": 1}}, "search: few shapes are measured"),
        ({"speedup": 1.0}, "greater than 1"),
    ],
)
def test_rounds_that_contradict_themselves_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Round(**TRAINING, **section)


def test_the_command_measures_and_writes_what_the_plan_then_reads(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int]] = []

    def timed(student: Any, teacher: Any, files: Any, timing: Timing) -> Any:
        assert (files, timing.batches, timing.tokens) == ({}, [1], 16)
        assert not student.training
        asked.append((student.num_parameters(), teacher.num_parameters()))
        record = {"latency_ms_p50": asked[-1][0] / 1e3, "teacher_latency_ms_p50": asked[-1][1] / 1e3}
        return {"torch": {"1": record}}

    monkeypatch.setattr(speed, "compare_latencies", timed)
    training = "labelled_epochs: 1, transfer_epochs: 1.0, learning_rate: 1.0e-4"
    overrides = [
        f"teacher.model=path:{tiny_model}",
        "evaluate.latency_tokens=16",
        f"rounds={{r1: {{parent: teacher, vocabulary: 80, hidden: 32, heads: 4, ffn: 40, layers: 3, {training}}}, "
        f"r2: {{parent: r1, ratio: 2.0, {training}}}}}",
    ]
    path = tmp_path / "params.yaml"
    path.write_text(apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), overrides, "p"), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["compactlm", *arguments])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        return int(leave.value.code or 0), said.out + said.err

    code, said = run("measure", "r2")
    assert code == 2
    assert "r2: is no round of params.yaml with speedup; none has it" in said
    overrides = [f"rounds.r2={{parent: r1, speedup: 2.0, {training}}}"]
    path.write_text(apply_overrides(path.read_text(encoding="utf-8"), overrides, "p"), encoding="utf-8")
    code, said = run("shapes")
    assert code == 2
    assert "run: compactlm measure r2" in said
    code, said = run("measure", "r1")
    assert code == 2
    assert "r1: is no round of params.yaml with speedup; such are r2" in said
    code, said = run("measure", "r2", "--set", "rounds.r2.learning_rate=2.0e-4", "--json")
    assert code == 0
    assert len(set(asked)) == len(json.loads(said)["shapes"])
    record = load_params(path).rounds["r2"].model_dump()["measured"]
    assert record == json.loads(said)
    assert load_params(path).rounds["r2"].model_dump()["learning_rate"] == 2.0e-4
    code, said = run("shapes", "--json")
    row = json.loads(said)[-1]
    assert (code, row["how"]) == (0, "solved for speedup: 2.0")
    assert row["shape"] in [{axis: one[axis] for axis in AXES} for one in record["shapes"]]
    assert row["ratio"] >= 2.0  # here time is parameters
    before = path.read_bytes()
    assert run("shapes", "r2")[0] == 0
    assert (path.read_bytes(), len(asked)) == (before, len(record["shapes"]))
