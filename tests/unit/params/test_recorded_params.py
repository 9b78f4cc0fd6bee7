"""Params of records: of this version, of one before `task` was a key, and of none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.lineage.chain import agree, completed, plain
from tasks.params.base import CLASSIFICATION
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.file import read_yaml
from tasks.params.recorded import recorded_params
from tasks.registry.rebuild import recorded_run
from tests.causal import ROOT


def values(name: str, without: str | None = None) -> dict[str, Any]:
    return {key: value for key, value in read_yaml(ROOT / name).items() if key != without}


def test_a_record_is_of_its_task() -> None:
    assert isinstance(recorded_params(values("params.yaml")), ClassificationParams)
    assert isinstance(recorded_params(values("params/gpt2-tiny.yaml")), CausalLMParams)


def test_a_record_of_before_the_key_is_of_a_classifier() -> None:
    found = recorded_params(values("params.yaml", without="task"))
    assert isinstance(found, ClassificationParams)
    assert found.task == CLASSIFICATION
    assert found == recorded_params(values("params.yaml"))


@pytest.mark.parametrize("key", ["launcher", "compile"])
def test_a_record_of_before_a_key_of_the_runtime_is_of_its_default(key: str) -> None:
    record = values("params.yaml")
    del record["runtime"][key]
    assert recorded_params(record) == recorded_params(values("params.yaml"))


@pytest.mark.parametrize("file", ["params.yaml", "params/gpt2-tiny.yaml"])
def test_a_record_of_before_these_choices_made_the_only_one_there_was(file: str) -> None:
    record = values(file)
    for section, key in (("prune", "depth"), ("prune", "merge_heads"), ("distill", "cache")):
        del record[section][key]
    assert recorded_params(record) == recorded_params(values(file))


def test_a_search_of_before_its_trials_were_stages_has_those_it_made() -> None:
    record = values("params.yaml", without="trials")
    budget = {"parent": "teacher", "ratio": 2.0, "labelled_epochs": 1, "transfer_epochs": 1.0, "learning_rate": 1.0e-4}
    record["rounds"] = {"r1": {**budget, "search": {"candidates": 3, "transfer_rows": 100, "keep": 2}}}
    found = recorded_params(record)
    assert found.trials.model_dump() == {"rounds": ["r1"], "candidates": [1, 2, 3], "places": [1, 2]}
    record["rounds"]["r1"]["search"] = {"candidates": "three"}
    with pytest.raises(ValidationError):
        recorded_params(record)


def test_a_language_model_of_before_accumulate_learnt_from_whole_batches() -> None:
    record = values("params/smollm2.yaml")
    for section in ("teacher", "distill"):
        del record[section]["accumulate"]
    found = recorded_params(record)
    assert isinstance(found, CausalLMParams)
    assert (found.teacher.accumulate, found.distill.accumulate) == (1, 1)


def test_a_launcher_of_before_the_strategy_is_of_ddp() -> None:
    record = values("params.yaml")
    record["runtime"]["launcher"] = {"processes": 2, "backend": "gloo"}
    launcher = recorded_params(record).runtime.launcher
    assert launcher is not None
    assert launcher.strategy == "ddp"


@pytest.mark.parametrize("record", [None, [], "params", {}, {"task": "translation"}, {"task": "causal_lm", "seed": 0}])
def test_what_is_not_of_this_version_is_a_validation_error(record: object) -> None:
    with pytest.raises(ValidationError):
        recorded_params(record)
    assert completed(record) == plain(record)


def test_a_language_model_without_its_task_is_no_classifier() -> None:
    with pytest.raises(ValidationError):
        recorded_params(values("params/gpt2-tiny.yaml", without="task"))


def test_a_receipt_of_before_the_key_agrees_with_the_file_of_its_time() -> None:
    written = values("params.yaml", without="task")
    told = {key: value for key, value in completed(written).items() if key != "task"}  # as the receipt has it
    assert agree(told, plain(written), completed(written))


def test_a_run_of_before_the_key_can_be_recorded_again(tmp_path: Path) -> None:
    record = {
        "ref": "refs/compactlm/runs/1",
        "params": values("params.yaml", without="task"),
        "inputs_digest": "0" * 64,
        "dvc_lock": "schema: '2.0'\n",
        "facts": {},
        "outcomes": {},
        "stages": {},
    }
    assert recorded_run(record, tmp_path).params.registry.model_name == "compactlm-sentiment"
