"""What params.yaml may say of pairs of texts, what is refused beside them, and which teachers read none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.data.classification import checked
from tasks.data.look import table_faults
from tasks.errors import ParamsError
from tasks.gates.data import GROUPS_APART, group_name, no_overlap
from tasks.models.checkpoint import read_config
from tasks.params.file import check_params, load_params
from tasks.params.recorded import recorded_params
from tasks.promotion.golden import asked_of, golden_rows
from tasks.registry.tracking import Served
from tasks.running.preflight import check_pairs
from tests.conftest import tiny_tokenizer
from tests.families import CONFIGS, ENCODERS, write_family
from tests.paired import pair_params, write_pairs

ROOT = Path(__file__).resolve().parents[3]
TEXTS = {"source": "path:x", "rows": 9, "column": "text"}
PROOF = {"metric": "accuracy", "set": "test", "versus": "teacher", "max_drop": 0.1, "confidence": 0.95, "min_support": 9}


def values() -> dict[str, Any]:
    found: dict[str, Any] = pair_params(Path("rows.csv")).model_dump()
    return found


def test_left_out_it_is_as_it_was() -> None:
    params = load_params(ROOT / "params.yaml")
    columns = params.model_dump()["data"]["columns"]
    assert (columns.pop("text_pair"), columns.pop("group")) == (None, None)
    record = params.model_dump(mode="json")
    for key in ("text_pair", "group"):
        del record["data"]["columns"][key]
    assert recorded_params(record) == params, "a record of before the keys is of single texts"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"columns.text_pair": "a"},
            "text, text_pair, label, split and group must be columns of their own, not 'a', 'a', 'label'",
        ),
        ({"columns.group": "b"}, "must be columns of their own"),
        ({"columns.text_pair": None, "columns.group": "g"}, "group: 'g': only pairs of texts are kept together; name the second"),
        (
            {"stress": {"sets": {"x": {**TEXTS, "about": "x"}}, "changed": None}},
            "stress: is for single texts, and .*allowed: null",
        ),
        ({"transfer.broad": {"x": TEXTS}}, "transfer.broad: is for single texts"),
        ({"transfer.surface": {"share": 0.1, "kinds": ["handles"]}}, "transfer.surface: is for single texts"),
    ],
)
def test_what_pairs_have_no_place_for_is_refused_by_its_key(change: dict[str, Any], words: str) -> None:
    wanted = values()
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        (wanted["data"][section] if section else wanted["data"])[name] = value
    with pytest.raises(ParamsError, match=words):
        check_params(wanted, "params.yaml")


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (
            {**PROOF, "test": "mcnemar"},
            r"gates.0: test: mcnemar takes rows to be independent, and pairs of one first text are not",
        ),
        (
            {"metric": "agreement", "set": "test", "min": 0.5, "confidence": 0.95, "min_support": 9},
            "gates.0: agreement with confidence takes rows to be independent",
        ),
    ],
)
def test_proofs_that_count_rows_are_refused(gate: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        check_params({**values(), "gates": [gate]}, "params.yaml")
    assert check_params({**values(), "gates": [{**PROOF, "test": "paired_bootstrap"}]}, "params.yaml")


@pytest.mark.parametrize("more", [{"set": "validation"}, {"slice": "negation"}])
def test_order_is_asked_of_the_whole_test_set(more: dict[str, Any]) -> None:
    gate = {"metric": "order_sensitivity", "set": "test", "max": 0.1}
    assert check_params({**values(), "gates": [gate]}, "params.yaml")
    with pytest.raises(ParamsError, match=r"gates.0: order_sensitivity is measured of pairs .*, on set test as a whole"):
        check_params({**values(), "gates": [{**gate, **more}]}, "params.yaml")


def test_the_second_text_alone_is_a_rival_of_pairs() -> None:
    wanted = values()
    wanted["data"]["columns"]["text_pair"] = None
    with pytest.raises(ParamsError, match=r"gates.4.versus: second_text_alone is measured of pairs; name the second text"):
        check_params(wanted, "params.yaml")


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2", "llama"])
def test_teachers_that_read_no_pairs_are_refused(tmp_path: Path, name: str) -> None:
    assert name in CONFIGS
    folder = write_family(name, tmp_path)
    if name in ENCODERS:
        check_pairs(folder, read_config(folder))
        return
    with pytest.raises(
        ParamsError, match=rf"text_pair: .* is a {name}, which answers at the last token, .*bert, distilbert, roberta"
    ):
        check_pairs(folder, read_config(folder))


def test_a_tokenizer_that_sets_no_mark_is_refused(tmp_path: Path) -> None:
    from tests.conftest import write_tokenizer_files

    write_tokenizer_files({**tiny_tokenizer(), "post_processor": None}, tmp_path)
    with pytest.raises(ParamsError, match=r"tokenizer.json: post_processor sets no mark between the two texts of a pair"):
        check_pairs(tmp_path, CONFIGS["bert"])


def test_faults_of_the_second_column_are_found_before_a_run(tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "rows.csv", firsts=8)
    columns = pair_params(file).data.columns.model_dump()
    labels = {0: "against", 1: "for"}
    assert table_faults(file, "data.source", columns, labels) == []
    assert (
        "no column 'c', which data.columns.text_pair names" in table_faults(file, "k", {**columns, "text_pair": "c"}, labels)[0]
    )
    lines = file.read_text().splitlines()
    lines[3] = "a film,,1,home,album 0"
    file.write_text("\n".join(lines) + "\n")
    assert "column 'b' has 1 row with an empty text (row 3" in table_faults(file, "k", columns, labels)[0]
    params = pair_params(file)
    found = checked(tmp_path, params.data.model_dump(), params.validate_data.model_dump())
    problems = {check.name: check.problems for _, checks in found.suites.values() for check in checks}
    assert len(problems["empty_texts"]) == 1


def test_a_group_that_is_learnt_from_and_measured_fails_no_overlap() -> None:
    met = [{"name": name, "success": True} for name in ("one_set_a_text", "near_duplicates_held_out", GROUPS_APART)]
    learnt = {"train": {"1", group_name("g")}}
    assert no_overlap({"expectations": met}, learnt, {"test": {"2", group_name("h")}}, True).result == "pass"
    assert no_overlap({"expectations": met}, learnt, {"test": {"2", group_name("g")}}, True).result == "fail"
    assert no_overlap({"expectations": met[:2]}, learnt, {"test": {"2", group_name("h")}}, True).result == "hold"
    assert no_overlap({"expectations": met[:2]}, {"train": {"1"}}, {"test": {"2"}}).sentence.startswith("none of 1 measured")


def test_golden_rows_are_all_pairs_or_none() -> None:
    row = {"text": "a", "text_pair": "b", "label": "x", "logits": [0.0, 1.0]}
    known = golden_rows({"rows": [row], "atol": 0.1})
    assert known is not None
    assert asked_of(known[0]) == [("a", "b")]
    for wrong in (
        {**row, "text_pair": 3},
        {**row, "text_pair": None},
        {key: row[key] for key in ("text_pair", "label", "logits")},
    ):
        assert golden_rows({"rows": [wrong], "atol": 0.1}) is None
    assert golden_rows({"rows": [row, {key: row[key] for key in ("text", "label", "logits")}], "atol": 0.1}) is None


def test_what_serves_a_model_follows_from_what_it_reads(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    assert Served(tmp_path, None).program == "served_generator.py"
    assert Served(tmp_path, onnx).program == "served_model.py"
    assert Served(tmp_path, onnx, pairs=True).program == "served_pairs.py"
