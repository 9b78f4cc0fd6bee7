"""Teachers as people bring them, through the stages: classes in another order, no head, and more rows than tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tasks.data.tokens import load_tokens
from tasks.errors import SourceError
from tasks.files import read_json, write_json
from tasks.models.checkpoint import load_classifier, save_classifier
from tasks.models.devices import Device
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params
from tasks.stages import prune, teacher
from tests.families import write_family
from tests.integration.test_decoders import params_of, write_prepared


def as_it_is(epochs: int = 0) -> ClassificationParams:
    values = params_of("gpt2", "activation", 80).model_dump()
    values["teacher"] |= {"epochs": epochs}
    return check_params(values, "params.yaml")


def test_a_teacher_with_its_classes_the_other_way_round_answers_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    params, base, sets, tokens = as_it_is(), write_family("bert", tmp_path / "base"), tmp_path / "sets", tmp_path / "tokens"
    names = {"0": "positive", "1": "negative"}
    write_json(base / "config.json", {**read_json(base / "config.json"), "id2label": names})
    write_prepared(sets, tokens, base, params)
    teacher.check(params, base)
    facts = teacher.run(params, base=base, sets=sets, tokens=tokens, out=tmp_path / "taught")
    changed = "the rows of the head follow data.labels: negative was 1, positive was 0"
    assert facts["changes"] == [changed]
    assert f"teacher: {changed}" in capsys.readouterr().err
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "taught/model")
    asked, cpu = load_tokens(tokens / "test"), Device(torch.device("cpu"), "fp32", 1)
    before = predict_logits(load_classifier(base), asked, 16, cpu).argmax(axis=1)
    after = predict_logits(stock, asked, 16, cpu).argmax(axis=1)
    assert [stock.config.id2label[number] for number in after] == [names[str(number)] for number in before]
    assert len(set(after)) == 2, "both classes are answered"


def test_a_teacher_without_a_head_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    base = write_family("bert", tmp_path / "base")
    write_json(base / "config.json", {**read_json(base / "config.json"), "architectures": ["BertModel"]})
    with pytest.raises(SourceError, match=r"teacher\.epochs: 0 takes the teacher as it is, but it has no classification head"):
        teacher.check(as_it_is(), base)
    teacher.check(as_it_is(epochs=1), base)


@pytest.mark.parametrize("vocabulary", [90, 80])
def test_a_padded_embedding_with_added_tokens_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vocabulary: int) -> None:
    """Rows that are no token go, and the two tokens that were added above the 82 pieces stay."""
    monkeypatch.chdir(tmp_path)
    params = params_of("gpt2", "activation", vocabulary)
    base, sets, tokens = write_family("bert", tmp_path / "base"), tmp_path / "sets", tmp_path / "tokens"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["n9x1", "greatfilm"])
    tokenizer.save_pretrained(base)
    model = load_classifier(base)
    model.resize_token_embeddings(96)
    save_classifier(model, base, base)
    write_prepared(sets, tokens, base, params)
    pruned = tmp_path / "pruned"
    facts = prune.run(
        params,
        round="r1",
        parent=base,
        tokens=tokens,
        sets=sets,
        teacher=base,
        out=pruned,
        planned=tmp_path / "search/planned.json",
        student_tokens=tmp_path / "student_tokens",
    )
    student = load_classifier(pruned / "model")
    assert facts["params_total"] == student.num_parameters()
    assert student.config.vocab_size == min(vocabulary, 81), "81 of the 84 tokens occur or are needed"
    stock = AutoTokenizer.from_pretrained(pruned / "model")
    text = "a greatfilm and n9x1"
    assert {"greatfilm", "n9x1"} <= set(stock.tokenize(text))
    keep, stock_ids = read_json(pruned / "plan.json")["keep"]["vocabulary"], stock(text)["input_ids"]
    assert stock_ids == Tokenizer.from_file(str(pruned / "model/tokenizer.json")).encode(text).ids
    assert [keep[number] for number in stock_ids] == tokenizer(text)["input_ids"]
