"""A round with `search` through its stages: candidates are cut, tried, ranked and finished, and an audit can follow it all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.audit import rederive
from tasks.audit.classification import pruned, searched
from tasks.errors import ParamsError
from tasks.files import read_json, read_json_lines, write_json
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import load_classifier, read_config
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.params.rounds import trials_of
from tasks.registry.records import flatten_search
from tasks.report.classification import searches
from tasks.running.preflight import check_shapes
from tasks.stages import distill, finish, prune, teacher_logits, trial
from tests.integration.test_masked_rounds import killed_at
from tests.integration.tiny_run import tiny_params

KL = "best_validation_kl_nats_per_example"
TRAINING = {"labelled_epochs": 1, "transfer_epochs": 0.5, "learning_rate": 5.0e-3}
SEARCH = {"candidates": 3, "transfer_rows": 60, "keep": 2}
TARGET = {"parent": "teacher", "ratio": 2.0, "search": SEARCH, **TRAINING}


def params_of(**rounds: dict[str, Any]) -> ClassificationParams:
    values: dict[str, Any] = tiny_params().model_dump()
    values["data"]["max_tokens"] = 48
    values["distill"] |= {"batch_rows": 16, "checkpoints": 2}
    values["rounds"] = rounds
    searches = {name: target["search"] for name, target in rounds.items() if "search" in target}
    values["trials"] = trials_of(searches)
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    return check_params(values, "params.yaml")


Stage = Callable[[Path], dict[str, Any]]


class Round:
    """The stages of one round, below a workspace as a run has it."""

    search_facts: dict[str, Any]

    def __init__(self, families: Path, workspace: Path) -> None:
        mine = families / "bert"
        self.workspace, self.place = workspace, workspace / "artifacts/rounds/r1"
        parent = workspace / "artifacts/rounds/teacher/trained"
        parent.mkdir(parents=True)
        (parent / "model").symlink_to(mine / "teacher")
        self.params, self.sets, self.teacher = params_of(r1=TARGET), families / "sets", mine / "teacher"
        self.prune_facts = prune.run(
            self.params,
            round="r1",
            parent=self.teacher,
            teacher=self.teacher,
            tokens=mine / "tokens",
            sets=self.sets,
            out=self.place / "pruned",
            planned=self.place / "search/planned.json",
            student_tokens=self.place / "tokens",
        )
        self.logits = workspace / "logits"
        teacher_logits.run(self.params, teacher=self.teacher, sets=self.sets, tokens=mine / "tokens", out=self.logits)

    @property
    def _learning(self) -> dict[str, Any]:
        return {"tokens": self.place / "tokens", "sets": self.sets, "logits": self.logits, "teacher": self.teacher}

    def trial(self, number: int, out: Path) -> dict[str, Any]:
        pruned = self.place / f"pruned/candidates/{number}"
        return trial.run(self.params, round="r1", candidate=str(number), pruned=pruned, out=out, **self._learning)

    def finish(self, place: int, out: Path) -> dict[str, Any]:
        folder = self.place / "search/tried"
        return finish.run(
            self.params, round="r1", place=str(place), pruned=self.place / "pruned", tried=folder, out=out, **self._learning
        )

    def search(self) -> dict[str, Any]:
        for number in range(1, SEARCH["candidates"] + 1):
            self.trial(number, self.place / "search/tried" / str(number))
        for place in range(1, SEARCH["keep"] + 1):
            self.finish(place, self.place / "search/finished" / str(place))
        return distill.run(
            self.params,
            round="r1",
            pruned=self.place / "pruned",
            search=self.place / "search",
            out=self.place / "trained",
            **self._learning,
        )


@pytest.fixture(scope="module")
def searched_round(tiny_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Round:
    """Return a round after its search; copy its workspace before changing it."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # scratches of unfinished training stand below the workspace
        made = Round(tiny_families, folder)
        made.search_facts = made.search()
        assert list((folder / ".compactlm/scratch").iterdir()) == []
    return made


def test_candidates_are_cut_tried_ranked_and_the_best_is_finished(searched_round: Round) -> None:
    plan = read_json(searched_round.place / "pruned/plan.json")
    record = read_json(searched_round.place / "trained/search.json")
    assert searched_round.prune_facts["candidates"] == plan["candidates"]
    assert [one["shape_after"] for one in record["candidates"]] == [one["shape_after"] for one in plan["candidates"]]
    assert len({str(one["shape_after"]) for one in record["candidates"]}) == SEARCH["candidates"]
    for one in plan["candidates"]:
        model = load_classifier(searched_round.place / f"pruned/candidates/{one['candidate']}/model")
        assert model.num_parameters() == one["params_total"] <= plan["shape_before"]["vocabulary"] * 1e6
        assert adapter_of(model.config.to_dict()).shape(model.config.to_dict()) == one["shape_after"]
    by_rank = sorted(record["candidates"], key=lambda one: int(one["rank_after"]))
    assert [one["short"][KL] for one in by_rank] == sorted(one["short"][KL] for one in by_rank)
    assert [one["finished"] is not None for one in by_rank] == [True, True, False]
    best = min(by_rank[:2], key=lambda one: float(one["finished"][KL]))
    assert record["chosen"] == best["candidate"]
    assert all(one["short"]["steps"] == 4 for one in by_rank)  # 60 of the 100 transfer rows in batches of 16
    assert all(one["finished"]["steps"] > 4 for one in by_rank[:2])
    trained = read_config(searched_round.place / "trained/model")
    assert adapter_of(trained).shape(trained) == best["shape_after"]
    summary = read_json(searched_round.place / "trained/summary.json")
    assert summary["model_sha256"] == best["finished"]["model_sha256"]
    assert summary[KL] == best["finished"][KL]


def test_a_killed_trial_ends_with_the_same_files(searched_round: Round, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.training.scratch.SAVE_EVERY_SECONDS", 0.0)
        patch.setattr("tasks.progress.Progress.update", killed_at(3))
        with pytest.raises(KeyboardInterrupt):
            searched_round.trial(2, tmp_path / "tried")
    assert Path(".compactlm/scratch/trial@r1-2/state.pt").exists()
    searched_round.trial(2, tmp_path / "tried")
    whole = searched_round.place / "search/tried/2"
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "tried").iterdir()) == ["steps.jsonl", "summary.json"]
    assert [name for name in names if (whole / name).read_bytes() != (tmp_path / "tried" / name).read_bytes()] == []


def test_the_stages_of_a_search_say_what_they_did(searched_round: Round) -> None:
    record = read_json(searched_round.place / "trained/search.json")
    assert searched_round.search_facts["search"] == record
    assert read_json(searched_round.place / "search/planned.json") == {"candidates": 3, "keep": 2}
    best = read_json(searched_round.place / "search/finished/1/summary.json")
    first = next(one for one in record["candidates"] if one["rank_after"] == 1)
    assert best["model_sha256"] == first["finished"]["model_sha256"]


def test_an_audit_follows_the_candidates_and_their_ranking(searched_round: Round) -> None:
    assert pruned(searched_round.workspace, "r1", "teacher") == []
    assert rederive.best_checkpoint(searched_round.workspace, "r1") == []
    assert searched(searched_round.workspace, "r1") == []


def better_rank(place: Path) -> None:
    record = read_json(place / "trained/search.json")
    first, last = (next(one for one in record["candidates"] if one["rank_after"] == rank) for rank in (1, SEARCH["candidates"]))
    first["rank_after"], last["rank_after"] = last["rank_after"], first["rank_after"]
    write_json(place / "trained/search.json", record)


def better_number(place: Path) -> None:
    record = read_json(place / "trained/search.json")
    next(one for one in record["candidates"] if one["finished"] is None)["short"][KL] = 0.0
    write_json(place / "trained/search.json", record)


def other_choice(place: Path) -> None:
    record = read_json(place / "trained/search.json")
    record["chosen"] = next(
        one["candidate"] for one in record["candidates"] if one["finished"] and one["candidate"] != record["chosen"]
    )
    write_json(place / "trained/search.json", record)


def other_curve(place: Path) -> None:
    path = next((place / "trained/search").glob("short-*.jsonl"))
    lines = read_json_lines(path)
    path.write_text(path.read_text(encoding="utf-8").replace(str(lines[-1]["validation_kl_nats_per_example"]), "0.0"))


@pytest.mark.parametrize(
    ("change", "subjects"),
    [
        (better_rank, {"r1: rank_after"}),
        (better_number, {"r1: candidate"}),
        (other_choice, {"r1: chosen"}),
        (other_curve, {"r1: candidate", "r1: short-"}),
    ],
)
def test_a_ranking_that_does_not_follow_is_found(
    searched_round: Round, tmp_path: Path, change: Callable[[Path], None], subjects: set[str]
) -> None:
    shutil.copytree(searched_round.workspace / "artifacts", tmp_path / "artifacts", symlinks=True)
    change(tmp_path / "artifacts/rounds/r1")
    said = {check.subject for check in searched(tmp_path, "r1")}
    assert all(any(one.startswith(subject) for one in said) for subject in subjects), said


def test_a_candidate_that_does_not_follow_from_its_plan_is_found(searched_round: Round, tmp_path: Path) -> None:
    shutil.copytree(searched_round.workspace / "artifacts", tmp_path / "artifacts", symlinks=True)
    folder = "artifacts/rounds/r1/pruned/candidates/2/model"
    weights = tmp_path / folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = [check.subject for check in pruned(tmp_path, "r1", "teacher")]
    assert found == [f"{folder}/model.safetensors"]


def test_the_report_and_the_record_name_every_candidate(searched_round: Round) -> None:
    record = read_json(searched_round.place / "trained/search.json")
    page = searches({"r1": record})
    assert all(f"candidate {one['candidate']}" in page for one in record["candidates"])
    assert f"candidate {record['chosen']}<small>taken</small>" in page
    assert searches({"r1": None}) == ""
    numbers = flatten_search(record)
    first = record["candidates"][0]
    assert numbers[f"search/candidate_1/short/{KL}"] == first["short"][KL]
    assert numbers["search/candidate_1/rank_after"] == first["rank_after"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"search": {**SEARCH, "keep": 3}}, "rounds.r1.search: keep: 3 of 3 candidates leaves nothing to rank"),
        ({"search": {**SEARCH, "candidates": 1}}, "rounds.r1.search.candidates: got 1"),
        ({"search": {**SEARCH, "transfer_rows": 10**9}}, "rounds.r1.search.transfer_rows: 1000000000 is more than"),
        ({"search": {"candidates": 3, "transfer_rows": 9}}, "rounds.r1.search.keep: missing"),
        ({"search": {**SEARCH, "candidate": 3}}, "rounds.r1.search.candidate: unknown key; did you mean 'candidates'?"),
        ({"vocabulary": 80, "hidden": 24, "heads": 3, "ffn": 40, "layers": 3, "ratio": None}, "search: all axes are given"),
        (
            {"ratio": None, "granularity": "n_m", "criterion": "wanda", "pattern": "2:4", "schedule": "single"},
            "search: granularity: n_m keeps the parent's shape",
        ),
    ],
)
def test_searches_that_make_no_sense_are_refused(changed: dict[str, Any], said: str) -> None:
    target = {key: value for key, value in {**TARGET, **changed}.items() if value is not None}
    with pytest.raises(ParamsError) as refused:
        params_of(r1=target)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("second", "trials", "said"),
    [
        ({}, {"rounds": [], "candidates": [], "places": []}, "trials: {rounds: [r1], candidates: [1, 2, 3], places: [1, 2]}"),
        ({"search": {**SEARCH, "candidates": 4}}, None, "rounds: r1, r2 have a search each; give all of them"),
        ({}, {"rounds": ["r1"], "candidates": [1, 2, 3], "places": [1, 2], "place": 1}, "trials.place: unknown key"),
    ],
)
def test_trials_must_be_those_of_the_searches(second: dict[str, Any], trials: dict[str, Any] | None, said: str) -> None:
    rounds = {"r1": TARGET} | ({"r2": {**TARGET, "parent": "r1", **second}} if second else {})
    values = params_of(r1=TARGET).model_dump() | {"rounds": rounds}
    with pytest.raises(ParamsError) as refused:
        check_params(values | ({} if trials is None else {"trials": trials}), "params.yaml")
    assert said in str(refused.value)


def test_a_round_must_fit_whichever_candidate_its_parent_takes(tiny_families: Path) -> None:
    config = read_config(tiny_families / "bert/teacher")
    shapes = check_shapes(params_of(r1=TARGET), config)
    axes = {**shapes["r1"], "ffn": shapes["r1"]["ffn"] - 1}
    with pytest.raises(ParamsError, match=r"rounds\.r2\.\w+: \d+ is larger than its parent's"):
        check_shapes(params_of(r1=TARGET, r2={"parent": "r1", **axes, **TRAINING}), config)
