"""A teacher's folder that cannot be used is refused at once, with words for each fault and without reading a weight."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.models.folder import TeacherWanted, teacher_faults
from tests.causal import write_decoder
from tests.families import CONFIGS, write_family

LABELS = {0: "negative", 1: "positive"}
AS_IT_IS = TeacherWanted(LABELS, 0, {"data.max_tokens": 64})
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("teachers")
    made = {name: write_family(name, place / name) for name in CONFIGS}
    return made | {f"lm_{name}": write_decoder(name, place / f"lm_{name}") for name in ("gpt2", "llama", "llama_biases")}


def edit(name: str, **changed: Any) -> Change:
    """Return what changes keys of a JSON file of a folder; None takes one out."""

    def change(folder: Path) -> None:
        path = folder / name
        content = {**json.loads(path.read_text()), **changed}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """Return what rewrites the weights of a folder."""

    def rewrite(folder: Path) -> None:
        path = folder / "model.safetensors"
        held = change(load_file(path))
        save_file(held, path, metadata={"format": "pt"})

    return rewrite


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def more_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {**tokenizer["added_tokens"][0], "id": len(tokenizer["model"]["vocab"]), "content": "<new>"}
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "added_tokens": [*tokenizer["added_tokens"], token]}))


def without(*names: str) -> Change:
    return weights(lambda held: {name: weight for name, weight in held.items() if not name.startswith(names)})


def edit_model(**changed: Any) -> Change:
    """Return what changes keys of the model of a tokenizer.json."""

    def change(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "model": {**tokenizer["model"], **changed}}))

    return change


def no_settings(folder: Path) -> None:
    """Make a cased tokenizer of one that has no settings, for which stock classes take what is usual: lower case."""
    edit("tokenizer.json", normalizer={"type": "BertNormalizer", "lowercase": False})(folder)
    (folder / "tokenizer_config.json").unlink()


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 417\n"
CASES: dict[str, tuple[str, Change, str]] = {
    "config_unreadable": ("bert", write("config.json", b"{\xff"), "config.json: not readable as JSON"),
    "config_deep": ("bert", write("config.json", DEEP), "config.json: it is nested too deep"),
    "config_a_list": ("bert", write("config.json", b"[]"), "config.json: a JSON object is needed"),
    "size_missing": ("bert", edit("config.json", hidden_size=None), "hidden_size: None; a whole number of at least 1"),
    "absurd_layers": ("bert", edit("config.json", num_hidden_layers=10**12), "config.json tells of 1000000000000 layers"),
    "tokenizer_deep": ("bert", write("tokenizer.json", DEEP), "tokenizer.json: it is nested too deep"),
    "tokenizer_empty": ("bert", write("tokenizer.json", b"{}"), "tokenizer.json: no tokenizer with a vocabulary"),
    "tokens_above_table": ("bert", more_tokens, "token '<new>' has id 82, and the embedding 82 rows"),
    "quantised": ("llama", edit("config.json", quantization_config={"quant_method": "gptq"}), "quantised; give the full-prec"),
    "whole_numbers": ("bert", weights(lambda held: {n: w.to(torch.int8) for n, w in held.items()}), "(I8)"),
    "pruned_heads": ("bert", edit("config.json", pruned_heads={"0": [1]}), "pruned_heads: layers of different numbers"),
    "adapter": ("bert", write("adapter_config.json", b"{}"), "weights of an adapter; merge it"),
    "pad_outside": ("bert", edit("config.json", pad_token_id=-1), "pad_token_id: -1 is none of the 82 rows"),
    "pad_unknown": ("llama", edit("tokenizer_config.json", pad_token="<p>"), "pad_token: '<p>' is no token of tokenizer.json"),
    "pad_moves_positions": ("roberta", edit("tokenizer_config.json", pad_token="<s>"), "the tokenizer pads with 0"),
    "no_pad": ("gpt2", edit("config.json", eos_token_id=None, bos_token_id=None), "pad_token_id and eos_token_id are both miss"),
    "left_padding": ("bert", edit("tokenizer_config.json", padding_side="left"), "padding_side: left is not supported"),
    "left_truncation": ("llama", edit("tokenizer.json", truncation={"direction": "Left"}), "truncation_side: left is not supp"),
    "other_case": ("bert", edit("tokenizer_config.json", do_lower_case=False), "do_lower_case: False, and normalizer in tok"),
    "case_left_out": ("bert", edit("tokenizer.json", normalizer={"lowercase": False}), "do_lower_case: True, and normalizer in"),
    "case_of_no_settings": ("bert", no_settings, "do_lower_case: None, and normalizer in tokenizer.json says False"),
    "mpnet_pads_otherwise": ("mpnet", edit("config.json", pad_token_id=0), "pad_token_id: 0: the stock class counts positions"),
    "mpnet_other_buckets": ("mpnet", edit("config.json", relative_attention_num_buckets=16), "_num_buckets: 16: the stock"),
    "mpnet_other_case": ("mpnet", edit("tokenizer_config.json", do_lower_case=False), "do_lower_case: False, and normalizer in"),
    "other_blanks": ("roberta", edit("tokenizer_config.json", add_prefix_space=True), "add_prefix_space: True, and pre_token"),
    "pointer": ("bert", write("model.safetensors", POINTER), "65 bytes, a pointer of Git LFS in place of the weights"),
    "cut_short": ("bert", cut_short, "cut short: it has"),
    "impossible_header": (
        "bert",
        write("model.safetensors", b"\xff" * 20),
        "its header says that it is 18,446,744,073,709,551,615",
    ),
    "no_header": ("bert", write("model.safetensors", (4).to_bytes(8, "little") + b"[42]"), "its header is no list of weights"),
    "shard_missing": ("bert", lose_a_shard, "model-00002-of-00002.safetensors: missing, 1 of 2 files"),
    "wrapped": (
        "bert",
        weights(lambda held: {f"encoder_model.{name}": weight for name, weight in held.items()}),
        "53 of 53 weights of a bert are missing: bert.embeddings.word_embeddings.weight",
    ),
    "layers_more": ("bert", edit("config.json", num_hidden_layers=2), "and config.json tells of 2 layers"),
    "other_width": (
        "bert",
        edit("config.json", intermediate_size=50),
        "intermediate.dense.weight [48, 32], where config.json tells",
    ),
    "no_head": ("bert", without("classifier"), "it has no classification head"),
    "other_head": ("bert", edit("config.json", architectures=["BertModel"]), "(architectures: ['BertModel'], missing: none)"),
    "other_names": ("bert", edit("config.json", id2label={"0": "no", "1": "yes"}), "its classes are 'no', 'yes'"),
    "other_number": (
        "bert",
        weights(
            lambda held: {n: w[:1].repeat(3, *[1] * (w.ndim - 1)) if n.startswith("classifier.") else w for n, w in held.items()}
        ),
        "its head has 3 classes and data.labels 2; set teacher.epochs to 1 or more",
    ),
    "added_tokens_missing": ("gpt2", edit("tokenizer.json", added_tokens=None), "tokenizer.json: no tokenizer with a vocabulary"),
    "relative_positions": (
        "bert",
        weights(lambda held: {**held, "bert.encoder.layer.0.attention.self.distance_embedding.weight": torch.ones(7, 8)}),
        "the class of bert does not read bert.encoder.layer.0.attention.self.distance_embedding.weight",
    ),
    "fewer_positions": ("roberta", edit("config.json", max_position_embeddings=80), "where config.json tells of [80, 32]"),
    "random_tokens": ("gpt2", edit_model(dropout=0.1), "model.dropout: a text would be cut otherwise each time"),
    "kv_heads": ("llama", edit("config.json", num_key_value_heads=3), "num_key_value_heads: 3 does not divide"),
    "no_lm_head": ("lm_llama_biases", without("lm_head"), "no weight lm_head.weight"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_refused_with_the_reason(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    name, change, words = CASES[case]
    folder = Path(shutil.copytree(folders[name], tmp_path / "folder"))
    change(folder)
    causal = name.startswith("lm_")
    lines = teacher_faults(folder, "causal_lm" if causal else "classification", TeacherWanted() if causal else AS_IT_IS)
    assert any(words in line for line in lines), lines
    assert all(line.startswith(("params.yaml: ", str(folder))) for line in lines)


@pytest.mark.parametrize("name", [*CONFIGS, "lm_gpt2", "lm_llama", "lm_llama_biases"])
def test_a_sound_folder_has_no_faults(folders: dict[str, Path], name: str) -> None:
    wanted = TeacherWanted() if name.startswith("lm_") else AS_IT_IS
    assert teacher_faults(folders[name], "causal_lm" if name.startswith("lm_") else "classification", wanted) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bert", weights(lambda held: {n.replace("LayerNorm.weight", "LayerNorm.gamma"): w for n, w in held.items()})),
        ("bert", weights(lambda held: {n.removeprefix("bert."): w for n, w in held.items() if n.startswith("bert.")})),
        ("roberta", without("classifier")),
        ("gpt2", weights(lambda held: {**held, "transformer.h.0.attn.masked_bias": torch.ones(1)})),
        ("gpt2", weights(lambda held: {n.removeprefix("transformer."): w for n, w in held.items() if "score" not in n})),
        ("bert", edit("config.json", id2label={"0": "x", "1": "y", "2": "z"})),
        ("llama", edit("tokenizer_config.json", padding_side="left")),
        ("llama", edit("config.json", pad_token_id=-1)),
    ],
)
def test_what_training_mends_is_no_fault(folders: dict[str, Path], tmp_path: Path, name: str, change: Change) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "folder"))
    change(folder)
    assert teacher_faults(folder, "classification", TeacherWanted(LABELS, 1, {"data.max_tokens": 64})) == []


@pytest.mark.parametrize(("name", "most"), [("bert", 64), ("roberta", 64), ("distilbert", 64), ("gpt2", 64), ("llama", None)])
def test_texts_longer_than_the_positions_are_refused(folders: dict[str, Path], name: str, most: int | None) -> None:
    wanted = TeacherWanted(LABELS, 1, {"data.max_tokens": 65, "evaluate.latency_tokens": 64})
    said = f"params.yaml: data.max_tokens: 65 tokens, and the teacher knows positions for {most}; give at most {most}"
    assert teacher_faults(folders[name], "classification", wanted) == ([said] if most else [])


def test_all_faults_are_said_at_once(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["bert"], tmp_path / "folder"))
    more_tokens(folder)
    edit("tokenizer_config.json", truncation_side="left", padding_side="left")(folder)
    cut_short(folder)
    assert len(teacher_faults(folder, "classification", TeacherWanted(LABELS, 0, {"data.max_tokens": 999}))) == 5


def test_the_check_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'sklearn'} & sys.modules.keys()"
    program = f"import sys, tasks.models.folder, tasks.models.architectures, tasks.running.preflight; print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
