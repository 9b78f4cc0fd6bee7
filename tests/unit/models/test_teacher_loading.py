"""What a teacher brings is kept by its meaning: classes by name, padding, old names of weights, settings for generating."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from tasks.data.sources import decoder_files, model_files, pickles_in
from tasks.data.tokens import load_tokenizer
from tasks.errors import SourceError
from tasks.files import read_json, write_json
from tasks.models.architectures.layout import TABLES
from tasks.models.checkpoint import (
    bound_length,
    load_causal_lm,
    load_classifier,
    load_teacher,
    pad_id,
    refuse_broken,
    refuse_other_tokens,
    save_causal_lm,
    save_classifier,
    unpack_gguf,
)
from tasks.models.folder import TeacherWanted, teacher_faults
from tasks.pruning.causal_lm import student_from_plan
from tasks.pruning.cut import write_tokenizer
from tasks.pruning.shapes import Plan
from tests.causal import write_decoder
from tests.families import CONFIGS, END, HEADS, LAYERS, write_family

IDS = torch.tensor([[12, 5, 9, 14, 3, 8], [12, 7, 7, 20, 1, 6], [4, 40, 31, 22, 9, 11]])
LABELS = {0: "negative", 1: "positive"}
HEADED = ("bert", "distilbert", "roberta", "gpt2", "qwen2")  # whose heads have different names, or tokenizers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("teachers")
    made = {name: write_family(name, place / name) for name in HEADED}
    return made | {f"lm_{name}": write_decoder(name, place / f"lm_{name}") for name in ("llama", "llama_biases", "qwen2")}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(folders[request.param], tmp_path / "teacher"))


def named(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("copied", names, indirect=True)


def edit(path: Path, **changed: Any) -> None:
    write_json(path, {**read_json(path), **changed})


def rewrite(folder: Path, renamed: dict[str, str]) -> None:
    """Rename parts of the names of a folder's weights."""
    held = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        held[name] = weight
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def is_causal(folder: Path) -> bool:
    return "CausalLM" in read_json(folder / "config.json")["architectures"][0]


def answers(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@named(*HEADED)
def test_classes_are_matched_by_their_names(copied: Path, tmp_path: Path) -> None:
    edit(copied / "config.json", id2label={"0": "Positive", "1": "NEGATIVE"}, label2id={"Positive": 0, "NEGATIVE": 1})
    before = answers(load_classifier(copied))
    model, lines = load_teacher(copied, LABELS)
    assert torch.equal(answers(model), before.flip(1))
    assert "the rows of the head follow data.labels: negative was 1, positive was 0" in lines
    save_classifier(model, copied, tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert stock.config.id2label == LABELS
    assert torch.equal(answers(stock), before.flip(1))


@named("bert")
@pytest.mark.parametrize(
    ("names", "words"),
    [({"0": "no", "1": "yes"}, "of the classes no, yes"), ({"0": "LABEL_0", "1": "LABEL_1"}, "whose classes have no names")],
)
def test_classes_that_no_name_matches_keep_their_rows(copied: Path, names: dict[str, str], words: str) -> None:
    edit(copied / "config.json", id2label=names)
    before = answers(load_classifier(copied))
    model, lines = load_teacher(copied, LABELS)
    assert torch.equal(answers(model), before)
    assert lines == [f"the head starts with the teacher's rows, {words}, in their order"]


@named(*HEADED)
def test_a_head_of_another_size_is_made_anew_and_said(copied: Path) -> None:
    model, lines = load_teacher(copied, {0: "a", 1: "b", 2: "c"})
    assert answers(model).shape == (3, 3)
    (line,) = [line for line in lines if line.startswith("new weights, drawn from the seed: ")]
    made = line.partition(": ")[2].split(", ")
    held = load_file(copied / "model.safetensors")
    assert all(torch.equal(weight, held[name]) for name, weight in model.state_dict().items() if name not in made)
    assert [name for name in made if "dense" in name or "pre_" in name] == [], "what both have is kept"


@named("bert")
def test_a_teacher_of_several_labels_a_text_becomes_one_of_a_single_label(copied: Path, tmp_path: Path) -> None:
    edit(copied / "config.json", problem_type="multi_label_classification")
    model, lines = load_teacher(copied, LABELS)
    assert lines[0] == "config.json: problem_type: multi_label_classification became single_label_classification"
    save_classifier(model, copied, tmp_path / "saved")
    assert read_json(tmp_path / "saved/config.json")["problem_type"] == "single_label_classification"


@named("bert")
def test_old_names_of_weights_are_read_and_saved_as_they_are_today(copied: Path, tmp_path: Path) -> None:
    before = load_file(copied / "model.safetensors")
    rewrite(copied, {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"})
    model, lines = load_teacher(copied, LABELS)
    assert not any("new weights" in line for line in lines)
    save_classifier(model, copied, tmp_path / "saved")
    after = load_file(tmp_path / "saved/model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@named("bert", "lm_llama")
def test_weights_under_unknown_names_are_never_drawn(copied: Path) -> None:
    rewrite(copied, {"bert.": "wrapped.net.", "model.": "wrapped.net."})
    with pytest.raises(SourceError, match=r"weights are missing, .*; the files hold others, such as .*wrapped\.net\."):
        load_causal_lm(copied) if is_causal(copied) else load_teacher(copied, LABELS)


@named("gpt2", "bert", "lm_llama")
def test_what_a_layer_has_besides_is_never_left_out_but_for_tables(copied: Path) -> None:
    layer = {"gpt2": "transformer.h.0.attn", "bert": "bert.encoder.layer.0.attention.self", "llama": "model.layers.0.self_attn"}
    place = layer[read_json(copied / "config.json")["model_type"]]
    held, load = load_file(copied / "model.safetensors"), load_causal_lm if is_causal(copied) else load_classifier
    held |= {
        f"{place}.{table}": torch.ones(1)
        for table in ("masked_bias", "rotary_emb.inv_freq")
        if f"{place}.{table}".endswith(TABLES)
    }
    save_file(held, copied / "model.safetensors", metadata={"format": "pt"})
    load(copied)
    save_file(
        {**held, f"{place}.distance_embedding.weight": torch.ones(3)}, copied / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(SourceError, match=r"weights of layers that the class does not read, such as .*\.distance_embedding"):
        load(copied)


@named("lm_llama", "bert")
def test_layers_that_config_json_does_not_tell_of_are_not_left_out(copied: Path) -> None:
    edit(copied / "config.json", num_hidden_layers=LAYERS - 1)
    with pytest.raises(SourceError, match=r"layers that the class does not read, such as .*\.2\."):
        load_causal_lm(copied) if is_causal(copied) else load_classifier(copied)


@named("lm_llama")
def test_of_a_head_that_is_the_embedding_either_name_will_do(copied: Path) -> None:
    before = answers(load_causal_lm(copied))
    rewrite(copied, {"model.embed_tokens.weight": "lm_head.weight"})
    assert torch.equal(answers(load_causal_lm(copied)), before)
    assert teacher_faults(copied, "causal_lm", TeacherWanted()) == []
    (line,) = teacher_faults(copied, "classification", TeacherWanted())
    assert "1 of 29 weights of a llama are missing: model.embed_tokens.weight" in line


@named("lm_llama_biases")
def test_a_language_model_without_its_head_is_refused(copied: Path) -> None:
    rewrite(copied, {"lm_head.weight": "head.weight"})
    with pytest.raises(SourceError, match=r"1 weights are missing, .*: lm_head\.weight"):
        load_causal_lm(copied)


@named("lm_llama_biases")
def test_a_head_of_its_own_in_a_file_that_ties_it_is_refused(copied: Path) -> None:
    edit(copied / "config.json", tie_word_embeddings=True)
    with pytest.raises(SourceError, match="tie_word_embeddings: True, but the head and the embedding differ"):
        load_causal_lm(copied)


@named("gpt2", "qwen2")
@pytest.mark.parametrize(
    ("token", "given", "wanted"), [("!", None, 0), ("!", 5, 0), (None, None, 257), (None, -1, 257), (None, 9999, 257)]
)
def test_a_decoder_pads_as_its_tokenizer_does(
    copied: Path, tmp_path: Path, token: str | None, given: int | None, wanted: int
) -> None:
    edit(copied / "tokenizer_config.json", pad_token=token)
    edit(copied / "config.json", pad_token_id=given)
    model, lines = load_teacher(copied, LABELS)
    assert pad_id(model) == wanted
    assert f"config.json: pad_token_id: {given} became {wanted}" in lines
    save_classifier(model, copied, tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = ["a long text of many words", "short", "that!"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        together = stock.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        alone = torch.cat([model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits for text in texts[:2]])
    torch.testing.assert_close(together[:2], alone, atol=1e-5, rtol=1e-4)


@named("lm_qwen2")
def test_a_template_and_the_settings_for_generating_stay_with_the_student(copied: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }}" + END + "{% endfor %}"
    (copied / "chat_template.jinja").write_text(template)
    chosen = {
        "do_sample": True,
        "temperature": 0.6,
        "eos_token_id": [257, 10, 256],  # 256, the one merge, goes
        "pad_token_id": 11,
        "suppress_tokens": [12, 256],
        "bad_words_ids": [[12, 257], [256, 12]],
        "sequence_bias": [[[257], 2.0], [[256], 1.0]],
    }
    write_json(copied / "generation_config.json", chosen)
    teacher = tmp_path / "taught"
    save_causal_lm(load_causal_lm(copied), copied, teacher)
    keep = [number for number in range(258) if number != 256]
    plan = Plan(keep, list(range(32)), [0, 2], [list(range(HEADS))] * 2, [[1, 2]] * 2, [])
    student = tmp_path / "student"
    save_causal_lm(student_from_plan(teacher, plan), teacher, student)
    write_tokenizer(teacher, plan, student)
    trained = tmp_path / "trained"
    save_causal_lm(load_causal_lm(student), student, trained)
    for folder, end, phrases in ((teacher, [257, 10, 256], chosen["bad_words_ids"]), (trained, [256, 10], [[12, 256]])):
        kept = GenerationConfig.from_pretrained(folder)
        assert (kept.do_sample, kept.temperature, kept.pad_token_id) == (True, 0.6, 11)
        assert (kept.eos_token_id, kept.bad_words_ids) == (end, phrases)
        assert AutoTokenizer.from_pretrained(folder).chat_template == template
    kept = GenerationConfig.from_pretrained(trained)
    assert (kept.suppress_tokens, kept.sequence_bias) == ([12], [[[256], 2.0]])


@named("bert")
def test_a_tokenizer_that_stock_classes_read_otherwise_is_refused(copied: Path) -> None:
    refuse_other_tokens(copied)
    edit(copied / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(SourceError, match='make stock classes read "A Caf\u00e9\'s 12 Plots" as other tokens than tokenizer'):
        refuse_other_tokens(copied)
    write_json(copied / "tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}, "added_tokens": []})
    with pytest.raises(SourceError, match=r"tokenizer\.json: no tokenizer can be read: .*out of vocabulary"):
        load_tokenizer(copied / "tokenizer.json")


@named("bert", "lm_llama")
def test_weights_that_are_no_numbers_are_refused(copied: Path) -> None:
    held = load_file(copied / "model.safetensors")
    next(iter(held.values())).view(-1)[3] = float("nan")
    save_file(held, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match="holds numbers that are not finite"):
        refuse_broken(copied, load_causal_lm(copied)) if is_causal(copied) else load_teacher(copied, LABELS)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match="43 bytes that do not begin as GGUF"):
        decoder_files(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 16)
    with pytest.raises(SourceError, match=r"a\.gguf: stock classes cannot load it \(error: unpack_from"):
        unpack_gguf(decoder_files(tmp_path / "a.gguf")[0], tmp_path / "out")


@pytest.mark.parametrize(
    ("copied", "key"),
    [("bert", "hidden_act"), ("bert", "layer_norm_eps"), ("gpt2", "activation_function"), ("gpt2", "layer_norm_epsilon")],
    indirect=["copied"],
)
def test_what_stock_classes_cannot_load_is_refused(copied: Path, key: str) -> None:
    edit(copied / "config.json", **{key: "none"})
    with pytest.raises(SourceError, match=r"stock classes cannot load it \(\w+: .*; mend its config\.json"):
        load_teacher(copied, LABELS)


@named("bert")
def test_the_state_of_a_trainer_is_left_out(copied: Path) -> None:
    names = [file.name for file in model_files(copied)]
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (copied / name).write_bytes(b"pickle")
    assert [file.name for file in model_files(copied)] == names
    assert pickles_in(copied) == ["optimizer.pt", "rng_state.pth", "training_args.bin"]
    (copied / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"optimizer\.pt, rng_state\.pth, training_args\.bin is a pickle"):
        model_files(copied)


def test_sizes_that_a_stock_class_knows_without_being_told_are_known_here() -> None:
    from tasks.models.architectures import adapter_of
    from tasks.models.checkpoint import classifier_from_config

    for name, heads in (("mistral", 16), ("qwen2", 64), ("qwen3", 64)):
        config = {**CONFIGS[name], "num_attention_heads": heads, "hidden_size": 2 * heads, "num_hidden_layers": 1}
        config = {key: value for key, value in config.items() if key not in ("num_key_value_heads", "head_dim")}
        family = adapter_of(config)
        with torch.device("meta"):
            model = classifier_from_config(config)
        assert family.count_parameters(config, family.shape(config), 2)["total"] == model.num_parameters(), name


@named("bert", "roberta")
@pytest.mark.parametrize("length", [None, int(1e30), 12])
def test_stock_tokenizers_cut_texts_at_the_length_that_the_model_reads(copied: Path, tmp_path: Path, length: int | None) -> None:
    edit(copied / "tokenizer_config.json", model_max_length=length)
    if length is None:
        write_json(
            copied / "tokenizer_config.json", {"tokenizer_class": read_json(copied / "tokenizer_config.json")["tokenizer_class"]}
        )
    save_classifier(load_classifier(copied), copied, tmp_path / "saved")
    bound_length(tmp_path / "saved")
    config = read_json(copied / "config.json")
    most = config["max_position_embeddings"] - (2 if config["model_type"] == "roberta" else 0)
    text = "film " * 300
    model, tokenizer = (kind.from_pretrained(tmp_path / "saved") for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    batch = tokenizer(text, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == min(most, length or most)
    assert model(**batch).logits.isfinite().all()
