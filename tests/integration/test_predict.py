"""`compactlm predict`: the answers are those of stock transformers, of the model that MLflow serves, and of ONNX Runtime."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tasks.artifacts import RoundPaths
from tasks.errors import UserError
from tasks.exports import onnx as door
from tasks.files import read_json, write_json
from tasks.report.use import snippets
from tasks.using import answers
from tasks.using.model import ONNX_FILES, find_model, longest_text
from tests.integration.conftest import Outside
from tests.integration.tiny_run import TEXTS

LONG = "great film " * 60
WRITTEN = [*TEXTS, LONG, "A fine, fine film; not dull.", "x"]


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tiny_exported: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier as `compactlm export` lays it out, its classes named."""
    folder = tmp_path_factory.mktemp("folder") / "exported"
    shutil.copytree(tiny_model, folder)
    config = read_json(folder / "config.json")
    names = {"0": "negative", "1": "positive"}
    write_json(folder / "config.json", {**config, "id2label": names, "label2id": {name: int(n) for n, name in names.items()}})
    (folder / "onnx").mkdir()
    for name in ONNX_FILES.values():
        shutil.copyfile(tiny_exported[0] / name, folder / "onnx" / name)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": place, "text": text}) + "\n" for place, text in enumerate(WRITTEN)))
    return path


@pytest.fixture
def predict(outside: Outside) -> Outside:
    """Run `compactlm predict ARGUMENTS` outside of any project: exit code, standard output and standard error."""
    return partial(outside, "predict")


def stock(folder: Path, **more: Any) -> list[dict[str, Any]]:
    from transformers import pipeline

    asked = pipeline("text-classification", model=str(folder), device="cpu")
    return [asked(text, truncation=True, **more) for text in WRITTEN]


def of_runtime(folder: Path, file: str) -> list[float]:
    """Return the probability of the first class of each text by itself, by ONNX Runtime and the stock tokenizer alone."""
    from transformers import AutoTokenizer

    tokenizer, session = AutoTokenizer.from_pretrained(folder), onnxruntime.InferenceSession(folder / "onnx" / file)
    found = []
    for text in WRITTEN:
        batch = tokenizer([text], truncation=True, return_tensors="np")
        given = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        powers = np.exp(session.run(None, given)[0][0].astype(np.float64))
        found.append(float(powers[0] / powers.sum()))
    return found


def test_torch_answers_as_stock_pipelines_do(exported: Path, file: Path, predict: Outside) -> None:
    code, printed, said = predict(exported, file, "--json", "--all")
    assert code == 0
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in rows] == WRITTEN
    assert [row["id"] for row in rows] == list(range(len(WRITTEN)))
    every = stock(exported, top_k=None)
    for row, expected in zip(rows, every, strict=True):
        assert row["label"] == expected[0]["label"]
        assert row["score"] == pytest.approx(expected[0]["score"], abs=1e-5)
        for one in expected:
            assert row[f"score_{one['label']}"] == pytest.approx(one["score"], abs=1e-5)
    assert "1 of 33 texts was cut at 64 tokens" in said


def test_so_does_what_mlflow_serves(exported: Path, tmp_path: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from tasks.registry.served_model import TextClassifier

    shorter = shutil.copytree(exported, tmp_path / "shorter")
    settings = read_json(shorter / "tokenizer_config.json")
    write_json(shorter / "tokenizer_config.json", {**settings, "model_max_length": 8})
    for folder in (exported, shorter):
        served = TextClassifier()
        served.load_context(context := PythonModelContext({"model": str(folder)}, {}))
        expected = served.predict(context, WRITTEN)
        classifier = answers.load(find_model(str(folder), tmp_path), "torch")
        given = classifier.answer(WRITTEN)
        assert [one.label for one in given if one] == expected["label"].tolist()
        np.testing.assert_allclose([one.score for one in given if one], expected["score"], atol=1e-5)
        for one, other in zip(given, stock(folder), strict=True):
            assert one is not None
            assert one.score == pytest.approx(other[0]["score"] if isinstance(other, list) else other["score"], abs=1e-5)
    assert classifier.longest == 8
    assert classifier.tally.cut > 1


@pytest.mark.parametrize(("option", "name"), [("--onnx", "model.onnx"), ("--int8", "model.int8.onnx")])
def test_onnx_files_answer_as_onnx_runtime_does(option: str, name: str, exported: Path, file: Path, predict: Outside) -> None:
    code, printed, _ = predict(exported, file, option, "--all")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["id", "text", "label", "score", "score_negative", "score_positive"]
    np.testing.assert_allclose([float(row["score_negative"]) for row in rows], of_runtime(exported, name), atol=1e-5)
    for row in rows:
        assert row["score"] == row[f"score_{row['label']}"] == max(row["score_negative"], row["score_positive"])


def test_an_answer_hangs_on_its_text_alone(exported: Path, tmp_path: Path) -> None:
    for form in ("torch", "onnx", "onnx_int8"):
        classifier = answers.load(find_model(str(exported), tmp_path), form)
        together = classifier.answer(WRITTEN)
        alone = [classifier.answer([text])[0] for text in WRITTEN]
        np.testing.assert_allclose([one.score for one in together if one], [one.score for one in alone if one], atol=1e-5)


def test_a_file_with_labels_and_blank_texts(exported: Path, predict: Outside, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('label,review\n1,a fine film\n0," "\n1,"dull, slow"\n')
    code, printed, said = predict(exported, "rows.csv", "--out", "answers.tsv")
    assert (code, printed) == (0, "")
    rows = list(csv.reader((tmp_path / "answers.tsv").read_text().splitlines(), delimiter="\t"))
    assert rows[0] == ["label", "review", "predicted_label", "score"]
    assert rows[2] == ["0", " ", "", ""]
    assert rows[1][2] in ("negative", "positive")
    for words in ("has such a column already", "1 of 3 rows has no text", "into answers.tsv"):
        assert words in said
    (tmp_path / "again.csv").write_text("text,label,predicted_label\na film,1,positive\n")
    code, printed, said = predict(exported, "again.csv")
    assert printed.splitlines()[0] == "text,label,predicted_label,predicted_predicted_label,score"
    assert "1 row answered" in said
    (tmp_path / "again.csv").unlink()
    code, printed, _ = predict(exported, "rows.csv", "--out", "answers.jsonl", "--json")
    assert json.loads(printed)["rows"] == 3
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.tsv", "rows.csv"]


def test_what_takes_long_tells_how_far_it_is(
    exported: Path, file: Path, predict: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, told in ((600.0, False), (0.0, True)):
        monkeypatch.setattr(answers, "INTERVAL_SECONDS", seconds)
        assert ("progress: predict 33/33 rows 100%" in predict(exported, file)[2]) is told


def test_faults_are_sentences(exported: Path, tiny_model: Path, file: Path, predict: Outside, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "onnx/model.onnx").write_bytes(b"no model")
    (broken / "model.safetensors").write_bytes(b"no weights")
    for name, change in (
        ("generator", {"architectures": ["GPT2LMHeadModel"]}),
        ("headless", {"architectures": ["BertModel"]}),
        ("regression", {"problem_type": "regression"}),
    ):
        folder = shutil.copytree(exported, tmp_path / name)
        write_json(folder / "config.json", {**read_json(folder / "config.json"), **change})
    for arguments, words in (
        (["champion", file], "champion: no folder with a config.json"),
        ([tiny_model, file, "--int8"], "there is no model.int8.onnx; the folder that `compactlm export` writes has it"),
        ([exported, "none.csv"], "none.csv: there is no such file"),
        ([exported, file, "--column", "texts"], "--column texts: write text=NAME"),
        ([exported, file, "--column", "text=words"], "has no such column"),
        ([exported, file, "--out", "answers.xlsx"], "answers are written as .csv, .tsv or .jsonl"),
        ([exported, file, "--out", "nowhere/answers.csv"], "its folder does not exist"),
        ([broken, file, "--onnx"], "ONNX Runtime cannot read it"),
        ([broken, file], "stock classes cannot load it"),
        (["generator", file], "is a language model, which continues texts and gives no labels"),
        (["headless", file], "gives no labels"),
        (["regression", file], "problem_type: regression"),
    ):
        code, printed, said = predict(*arguments)
        assert (code, printed) == (2, ""), said
        assert words in said
    code, printed, _ = predict("champion", file, "--json")
    assert (code, json.loads(printed)["exit_code"]) == (2, 2)


def test_a_round_of_the_project_is_a_model(built: Path, exported: Path) -> None:
    paths = RoundPaths(built, "r1")
    found = find_model("r1", built)
    assert found.folder == paths.model
    assert set(found.files) == {"onnx", "onnx_int8"}
    assert found.column == "text"
    assert longest_text(found) == 32
    with pytest.raises(UserError, match=r"r9: no folder .* none of the rounds teacher, r1, r2, r3, and no model"):
        find_model("r9", built)
    assert find_model(str(exported), built).column is None
    shutil.rmtree(paths.model)
    with pytest.raises(UserError, match=r"r1: is not trained in .*`compactlm run` makes it"):
        find_model("r1", built)


def test_the_code_of_the_documents_works(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/use.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    shown = snippets("exported", "exported/onnx/model.onnx", "exported", of_pairs=False)  # as card and report show it
    assert blocks == [each.code for each in shown if each.language == "python"]
    monkeypatch.chdir(exported.parent)
    for block in blocks:
        exec(compile(block, "docs/use.md", "exec"), {})
    first, second = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert first[0]["label"] == max(second, key=second.__getitem__)
    assert first[0]["score"] == pytest.approx(max(second.values()), abs=1e-5)


def test_the_files_are_called_as_the_export_calls_them() -> None:
    assert ONNX_FILES == door.ONNX_FILES
