"""Every criterion of the schema ranks single weights, or a round of masks refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from tasks.data.tokens import TokenSet
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device
from tasks.params.rounds import Criterion, Round
from tasks.pruning.weight_scores import WEIGHT_CRITERIA, WeightCalibration, make_masks

CPU = Device(torch.device("cpu"), "fp32", 1)
MASKS = {"granularity": "unstructured", "sparsity": 0.5, "schedule": "single"}
TRAINING = {"parent": "teacher", "labelled_epochs": 1, "transfer_epochs": 1.0, "learning_rate": 1.0e-4}


@pytest.mark.parametrize("name", get_args(Criterion))
def test_a_criterion_of_the_schema_has_a_function_of_its_own_or_is_refused(name: str) -> None:
    if name in WEIGHT_CRITERIA:
        assert Round(**TRAINING, **MASKS, criterion=name).criterion == name
    else:
        with pytest.raises(ValueError, match="criterion: masks rank single weights"):
            Round(**TRAINING, **MASKS, criterion=name)


def test_no_function_is_of_a_criterion_that_params_do_not_offer() -> None:
    assert set(WEIGHT_CRITERIA) < set(get_args(Criterion))


def statistics_of(folder: Path) -> WeightCalibration:
    lengths = np.array([3, 7, 5, 9])
    ids = np.random.default_rng(0).integers(5, 60, size=int(lengths.sum())).astype(np.int32)
    tokens = TokenSet(ids, np.concatenate([[0], np.cumsum(lengths)]))
    return WeightCalibration(load_classifier(folder), tokens, np.arange(4) % 2, CPU, 0)


@pytest.mark.parametrize("name", WEIGHT_CRITERIA)
def test_scores_are_one_a_weight_and_finite(tiny_model: Path, name: str) -> None:
    statistics = statistics_of(tiny_model)
    scores, weights = WEIGHT_CRITERIA[name](statistics), statistics.weights()
    assert {key: value.shape for key, value in scores.items()} == {key: value.shape for key, value in weights.items()}
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in scores.values())
    assert all(value.min() >= 0 for value in scores.values())


def test_an_unknown_criterion_is_taken_for_no_other(tiny_model: Path) -> None:
    with pytest.raises(KeyError, match="activation"):
        make_masks(statistics_of(tiny_model), Round(**TRAINING, **MASKS, criterion="taylor"), "activation")
