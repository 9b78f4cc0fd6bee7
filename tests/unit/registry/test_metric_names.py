"""Names of metrics in MLflow: one for each slice, which MLflow takes, and those of plain labels as they ever were."""

from __future__ import annotations

import json
import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.audit.dossier import RoundRecord
from tasks.audit.registry import metrics
from tasks.registry.records import LONGEST_SLICE, flatten_quality, former_key, slice_key, tag_key

TAKEN = re.compile(r"[/\w.\- ]+")  # by MLflow 3, mlflow/utils/validation.py
PLAIN = st.text(st.sampled_from("abzAZ09_-. "), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("slice_name", "key"),
    [
        ("class:negative", "class_negative"),
        ("tokens:rare", "tokens_rare"),
        ("negation", "negation"),
        ("class:spam/ham", "class_spam_x2F_ham"),
        ("source:https://x.org/?a=1", "source_https_x3A__x2F__x2F_x.org_x2F__x3F_a_x3D_1"),
        ("class:体育", "class_体育"),
        ("class:a_x2F_b", "class_a_x5F_x2F_b"),
        ("class:😀", "class__x1F600_"),
    ],
)
def test_the_name_of_a_slice(slice_name: str, key: str) -> None:
    assert slice_key(slice_name) == key


@given(first=st.text(max_size=30), second=st.text(max_size=30))
def test_two_slices_never_have_one_name_and_mlflow_takes_it(first: str, second: str) -> None:
    keys = [f"test/{slice_key(f'class:{name}')}/accuracy" for name in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)
    assert all(TAKEN.fullmatch(key) and posixpath.normpath(key) == key for key in keys)


def test_of_a_long_name_the_end_is_a_digest() -> None:
    keys = {slice_key("source:" + "very long " * 30 + end) for end in "ab"}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {LONGEST_SLICE}


@given(PLAIN)
def test_plain_names_are_what_they_were(name: str) -> None:
    assert slice_key(f"class:{name}") == tag_key(f"class:{name}")


def test_runs_that_were_recorded_under_former_names_hold() -> None:
    slices = {"overall": {}, "class:a/b": {"accuracy": 0.5}, "class:Q&A": {"accuracy": 0.25}}
    quality = {"sets": {"test": {"slices": slices}}}
    assert {former_key(key) for key in flatten_quality(quality)} == {"test/class_a/b/accuracy", "test/class_Q_A/accuracy"}

    def holds(**shown: float) -> bool:
        points = {f"test/{name}/accuracy": [(value, 0)] for name, value in {"class_a_x2F_b": 0.5, **shown}.items()}
        record = RoundRecord("r1", "", {}, points, {"quality.json": json.dumps(quality).encode()}, {}, "", {}, None)
        return all(finding.result == "PASS" for finding in metrics(record))

    assert holds(class_Q_A=0.25)
    assert holds(class_Q_x26_A=0.25)
    assert not holds(class_Q_A=0.3)
    assert not holds(class_Q=0.25)
