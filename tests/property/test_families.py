"""Every family: a pruned model equals its masked parent, has the parameters promised, and loads with the stock class."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tasks.data.tokens import TokenSet
from tasks.errors import ParamsError, SourceError
from tasks.files import write_json
from tasks.measuring import cost
from tasks.models.architectures import adapter_of, freeze, leave_out_unread, without_layers
from tasks.models.checkpoint import attend_plainly, load_classifier, pad_id, read_config, save_classifier
from tasks.models.devices import Device
from tasks.models.predict import predict_logits
from tasks.pruning.calibration import Calibration
from tasks.pruning.classification import student_from_plan
from tasks.pruning.criteria import CRITERIA, keep_best
from tasks.pruning.cut import make_plan, with_shared_heads
from tasks.pruning.shapes import Plan
from tasks.registry.served_model import TextClassifier
from tests.families import CONFIGS, ENCODERS, FFN, HEADS, LAYERS, write_family

CPU = Device(torch.device("cpu"), "fp32", 1)
FEW = settings(max_examples=8)
TOGETHER = (*ENCODERS, "gpt2")  # whose width is that of its heads together
every_family = pytest.mark.parametrize("name", CONFIGS)
IDS = torch.tensor([[12, 5, 9, 14, 3, 8], [12, 7, 7, 20, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {name: write_family(name, place / name) for name in CONFIGS}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.where(MASK == 1, IDS, pad_id(model)), attention_mask=MASK).logits


def everything(folder: Path) -> dict[str, Any]:
    """Return the keep lists of a plan that drops nothing."""
    config = read_config(folder)
    shape = adapter_of(config).shape(config)
    return {
        "vocabulary": list(range(shape["vocabulary"])),
        "hidden": list(range(shape["hidden"])),
        "layers": list(range(LAYERS)),
        "heads": [list(range(HEADS))] * LAYERS,
        "ffn": [list(range(FFN))] * LAYERS,
        "pooler": list(range(shape["hidden"])) if config["model_type"] in ENCODERS else [],
    }


def student_of(folder: Path, **changed: Any) -> Any:
    """Return the student of a plan that drops nothing but what is `changed`; it pads as its parent does."""
    student = student_from_plan(folder, Plan(**{**everything(folder), **changed}))
    student.config.pad_token_id = load_classifier(folder).config.pad_token_id
    return student


def ignore_inputs(module: Any, gone: list[int]) -> None:
    """Make a matrix product ignore these inputs; GPT-2's Conv1D keeps weights as (inputs, outputs)."""
    with torch.no_grad():
        if isinstance(module, torch.nn.Linear):
            module.weight[:, gone] = 0.0
        else:
            module.weight[gone] = 0.0


def drawn_heads(data: st.DataObject, groups: int) -> list[int]:
    """Return heads to keep, the same number of each group."""
    each = data.draw(st.integers(1, HEADS // groups))
    size = HEADS // groups
    return sorted(group * size + head for group in range(groups) for head in data.draw(st.permutations(range(size)))[:each])


def ignore_heads(module: Any, kept: list[int], head_size: int) -> None:
    ignore_inputs(module, [h * head_size + i for h in range(HEADS) if h not in kept for i in range(head_size)])


@every_family
def test_a_plan_that_keeps_everything_changes_no_bit(folders: dict[str, Path], name: str) -> None:
    student = student_of(folders[name]).state_dict()
    for key, weight in load_file(folders[name] / "model.safetensors").items():
        assert torch.equal(student[key], weight), key


@every_family
@FEW
@given(data=st.data())
def test_ffn_neurons_pruned_equal_masked(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, FFN))
    kept = [sorted(data.draw(st.permutations(range(FFN)))[:size]) for _ in range(LAYERS)]
    masked = load_classifier(folders[name])
    for module, mine in zip(adapter_of(read_config(folders[name])).sites(masked).ffn, kept, strict=True):
        ignore_inputs(module, [i for i in range(FFN) if i not in mine])
    torch.testing.assert_close(logits(student_of(folders[name], ffn=kept)), logits(masked), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in TOGETHER])
@FEW
@given(data=st.data())
def test_heads_pruned_equal_masked(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    config = read_config(folders[name])
    adapter = adapter_of(config)
    first = drawn_heads(data, adapter.head_groups(config))
    if read_config(folders[name])["hidden_size"] % len(first):
        first = list(range(HEADS))  # the stock class wants a width that the number of heads divides
    kept = [first] * LAYERS
    masked = load_classifier(folders[name])
    for module, mine in zip(adapter.sites(masked).attention, kept, strict=True):
        ignore_heads(module, mine, adapter.head_size(config))
    student = student_of(folders[name], heads=kept)
    torch.testing.assert_close(logits(student), logits(masked), atol=1e-5, rtol=1e-4)
    assert student.config.num_attention_heads == len(first)


@every_family
@pytest.mark.parametrize("kept", [[0], [0, 2], [1, 2], [0, 1, 2]])
def test_dropped_layers_equal_skipped_layers(folders: dict[str, Path], name: str, kept: list[int]) -> None:
    whole = everything(folders[name])
    student = student_of(folders[name], layers=kept, heads=[whole["heads"][i] for i in kept], ffn=[whole["ffn"][i] for i in kept])
    parent = load_classifier(folders[name])
    before = logits(parent)
    with without_layers(parent, set(range(LAYERS)) - set(kept)):
        torch.testing.assert_close(logits(student), logits(parent), atol=1e-6, rtol=1e-5)
    assert torch.equal(logits(parent), before), "the parent gets its layers back"


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "bert"])  # BERT: tests/property/test_pruning_exact
@FEW
@given(data=st.data())
def test_hidden_and_heads_equal_the_parent_with_smaller_norms(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    """Every norm of the parent is replaced by one written here, whose statistics and outputs are of kept channels alone."""
    config = read_config(folders[name])
    adapter = adapter_of(config)
    width = adapter.shape(config)["hidden"]
    heads = [drawn_heads(data, adapter.head_groups(config))]
    heads = heads * LAYERS if width % len(heads[0]) == 0 else [list(range(HEADS))] * LAYERS
    count = len(heads[0]) * (adapter.head_size(config) if name in TOGETHER else data.draw(st.integers(1, width // 4)))
    kept = sorted(data.draw(st.permutations(range(width)))[: min(count, width)])
    parent = load_classifier(folders[name])
    pooler = adapter.sites(parent).pooler  # its output channels are as many as the hidden ones, and need not be the same
    listened = sorted(data.draw(st.permutations(range(width)))[: len(kept)]) if pooler else []
    student = student_of(folders[name], heads=heads, hidden=kept, pooler=listened)
    if pooler:
        ignore_inputs(pooler, [i for i in range(width) if i not in listened])
    for module, mine in zip(adapter.sites(parent).attention, heads, strict=True):
        ignore_heads(module, mine, adapter.head_size(config))
    for norm, _ in adapter.sites(parent).hidden:
        norm.register_forward_hook(lambda module, inputs, _output: smaller_norm(module, inputs[0], kept))
    torch.testing.assert_close(logits(student), logits(parent), atol=1e-5, rtol=1e-3)


def smaller_norm(module: Any, x: torch.Tensor, kept: list[int]) -> torch.Tensor:
    """Return a norm over the kept channels, zero on the others."""
    mine, out = x[..., kept].double(), torch.zeros_like(x)
    if isinstance(module, torch.nn.LayerNorm):
        centred = mine - mine.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt()
        out[..., kept] = (scaled * module.weight[kept] + module.bias[kept]).float()
    else:
        scaled = mine / (mine.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
        out[..., kept] = (scaled * module.weight[kept]).float()
    return out


SHAPES = [(1.0, 4, 48, 3), (0.5, 2, 7, 1)]  # share of the width, heads, ffn, layers


@every_family
@pytest.mark.parametrize(("share", "heads", "ffn", "layers"), SHAPES)
def test_the_student_has_the_promised_parameters_and_loads_with_the_stock_class(
    folders: dict[str, Path], tmp_path: Path, name: str, share: float, heads: int, ffn: int, layers: int
) -> None:
    config = read_config(folders[name])
    adapter = adapter_of(config)
    target = {**adapter.shape(config), "heads": heads, "ffn": ffn, "layers": layers}
    target["hidden"] = int(share * target["hidden"])
    assert adapter.refusal(config, target) is None
    model = load_classifier(folders[name])
    labels = np.arange(6) % 2
    scores = CRITERIA["activation"](Calibration(model, rows(), labels, CPU, 0))
    pieces = list(range(target["vocabulary"]))
    if adapter.same_heads:
        scores = with_shared_heads(scores, list(range(layers)))
    plan = make_plan(scores, list(range(layers)), target, pieces, adapter.head_groups(config))
    student = student_from_plan(folders[name], plan)
    student.config.pad_token_id = model.config.pad_token_id
    counted = adapter.count_parameters(config, target, 2)
    assert counted == cost.count_parameters(student)
    assert counted["total"] == student.num_parameters()
    save_classifier(student, folders[name], tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(stock), logits(student))
    assert adapter.shape(read_config(tmp_path)) == target


def rows(count: int = 6) -> TokenSet:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, size=count)
    ids = rng.integers(0, 60, size=int(lengths.sum())).astype(np.int32)
    return TokenSet(ids, np.concatenate([[0], np.cumsum(lengths)]))


@every_family
@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "random"])
def test_dead_neurons_and_heads_go_first(folders: dict[str, Path], name: str, criterion: str) -> None:
    model = load_classifier(folders[name])
    config = read_config(folders[name])
    adapter = adapter_of(config)
    layout, head_size, groups = adapter.layout(config), adapter.head_size(config), adapter.head_groups(config)
    dead_neurons, dead_heads = [3, 17, 40], [0, 3]  # one head of each group, where there are groups
    channels = [h * head_size + i for h in dead_heads for i in range(head_size)]
    with torch.no_grad():
        for key, weight in model.named_parameters():
            layer, axes = layout.place(key)
            for dimension, axis in enumerate(axes if layer is not None else ()):
                values = weight.transpose(0, dimension)
                if axis == "ffn":
                    values[dead_neurons] = 0.0
                elif axis == "heads":
                    values[channels] = 0.0
                elif axis == "qkv":
                    values.unflatten(0, (3, -1))[:, channels] = 0.0
    scores = CRITERIA[criterion](Calibration(model, rows(), np.arange(6) % 2, CPU, 0))
    for layer_scores in scores.ffn_LF:
        assert keep_best(layer_scores, FFN - 3) == [i for i in range(FFN) if i not in dead_neurons]
    if criterion == "activation" and adapter.shared_kv(config):
        return  # a head without a query still mixes the values that its group shares: its activations are alive
    for layer_scores in scores.heads_LH:
        assert keep_best(layer_scores, 2, groups) == [1, 2]


@every_family
@pytest.mark.parametrize("tokens", [1, 16])
def test_flops_equal_torchs_counter(folders: dict[str, Path], name: str, tokens: int) -> None:
    model = load_classifier(folders[name])
    config = model.config.to_dict()
    adapter = adapter_of(config)
    model.set_attn_implementation("eager")
    ids, mask = map(torch.from_numpy, cost.random_batch(50, 1, tokens, seed=0))
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(input_ids=ids, attention_mask=mask)
    assert adapter.flops_per_example(config, tokens, 2) == counter.get_total_flops()


@every_family
def test_padding_changes_no_row_even_where_a_text_ends_with_id_0(folders: dict[str, Path], name: str) -> None:
    model = load_classifier(folders[name])
    texts = [[12, 5, 9], [12, 7, 7, 20, 0], [9, 0], [4, 0, 0, 0, 5, 6, 7]]
    lengths = [len(text) for text in texts]
    tokens = TokenSet(np.concatenate(texts).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    together, alone = predict_logits(model, tokens, 4, CPU), predict_logits(model, tokens, 1, CPU)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@every_family
def test_what_no_classifier_reads_can_be_left_out(folders: dict[str, Path], name: str) -> None:
    whole, short = load_classifier(folders[name]), load_classifier(folders[name])
    attend_plainly(short, CPU.device)
    leave_out_unread(short, CPU.device)
    torch.testing.assert_close(logits(short), logits(whole), atol=1e-6, rtol=1e-5)
    for model in (whole, short):
        ids = torch.where(MASK == 1, IDS, pad_id(model))
        model(input_ids=ids, attention_mask=MASK).logits.square().sum().backward()
    for key, parameter in whole.named_parameters():
        torch.testing.assert_close(dict(short.named_parameters())[key].grad, parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet"])
def test_the_last_layer_computes_one_token(folders: dict[str, Path], name: str) -> None:
    model = load_classifier(folders[name])
    attend_plainly(model, CPU.device)
    with FlopCounterMode(display=False) as whole:
        logits(model)
    leave_out_unread(model, CPU.device)
    with FlopCounterMode(display=False) as short:
        logits(model)
    assert model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state.shape[1] == 1
    assert short.get_total_flops() < (1 - 0.5 / LAYERS) * whole.get_total_flops()


@every_family
def test_frozen_layers_get_no_gradients(folders: dict[str, Path], name: str) -> None:
    model = load_classifier(folders[name])
    freeze(model, 2)
    layout = adapter_of(read_config(folders[name])).layout(read_config(folders[name]))
    for key, parameter in model.named_parameters():
        layer, _ = layout.place(key)
        below = layer in (0, 1) or key.startswith(layout.embeddings)
        assert parameter.requires_grad == (not below), key


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("bert", {"hidden": 16}, "hidden = 16 and heads = 4 make heads of 4 channels; the teacher's have 8"),
        ("gpt2", {"hidden": 16}, "a stock gpt2 model loads only hidden = heads x 8, here 32"),
        ("gpt2", {"vocabulary": 100}, "vocabulary = 100: those of gpt2 are byte-pair encodings, and the 256 bytes"),
        ("llama", {"heads": 3}, "heads = 3: the teacher's query heads share 2 groups of keys and values"),
        ("llama", {"vocabulary": 100}, "allowed: from 257 to 258"),
    ],
)
def test_shapes_that_stock_classes_cannot_hold_are_refused(name: str, changed: dict[str, int], words: str) -> None:
    adapter = adapter_of(CONFIGS[name])
    assert words in (adapter.refusal(CONFIGS[name], adapter.shape(CONFIGS[name]) | changed) or "")
    assert adapter.refusal(CONFIGS[name], adapter.shape(CONFIGS[name])) is None


def test_every_student_loads_in_a_fresh_process(folders: dict[str, Path], tmp_path: Path) -> None:
    program = """
import sys, torch
from transformers import AutoModelForSequenceClassification
found = {}
for name in sys.argv[2:]:
    model = AutoModelForSequenceClassification.from_pretrained(f"{sys.argv[1]}/{name}").eval()
    ids, mask = torch.load(f"{sys.argv[1]}/{name}/batch.pt")
    with torch.inference_mode():
        found[name] = model(input_ids=ids, attention_mask=mask).logits
assert "tasks" not in sys.modules
torch.save(found, f"{sys.argv[1]}/logits.pt")
"""
    wanted = {}
    for name in CONFIGS:
        student = student_of(folders[name], layers=[0, 2], heads=[list(range(HEADS))] * 2, ffn=[[3, 7, 40], [0, 1, 2]])
        save_classifier(student, folders[name], tmp_path / name)
        torch.save((torch.where(MASK == 1, IDS, pad_id(student)), MASK), tmp_path / name / "batch.pt")
        wanted[name] = logits(student)
    subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path), *CONFIGS], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "logits.pt")
    for name, mine in wanted.items():
        assert torch.equal(found[name], mine), name


def test_heads_that_share_a_table_are_the_same_in_all_layers(folders: dict[str, Path]) -> None:
    with pytest.raises(ParamsError, match="a stock mpnet model has one table for the heads of all layers"):
        student_of(folders["mpnet"], heads=[[0, 1], [0, 1], [1, 2]], hidden=list(range(16)), pooler=list(range(16)))
    config = read_config(folders["mpnet"])
    scores = Calibration(load_classifier(folders["mpnet"]), rows(), np.arange(6) % 2, CPU, 0).weight_sums(1)
    loud = scores.heads_LH.clone()
    loud[:, :] = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 9.0, 0.0, 4.0], [0.0, 0.0, 5.0, 0.0]])
    target = {**adapter_of(config).shape(config), "heads": 2, "hidden": 16}
    kept = {}
    for layers in ([0, 1], [0, 2]):
        shared = with_shared_heads(replace(scores, heads_LH=loud), layers)
        kept[tuple(layers)] = make_plan(shared, layers, target, list(range(target["vocabulary"])), 1).heads
    assert kept == {(0, 1): [[1, 3]] * 2, (0, 2): [[0, 2]] * 2}, "summed over the layers that stay"
    assert make_plan(shared, [0, 2], target, [0], 1, merge=True).merged == [[[0, 1], [2, 3]]] * 2, "the same pairs, too"


def test_a_table_of_distances_counts_for_its_heads(folders: dict[str, Path]) -> None:
    model = load_classifier(folders["mpnet"])
    calibration = Calibration(model, rows(), np.arange(6) % 2, CPU, 0)
    before = calibration.weight_sums(1).heads_LH
    table = model.mpnet.encoder.relative_attention_bias.weight
    expected = table.detach().abs().sum(dim=0)
    with torch.no_grad():
        table.zero_()
    torch.testing.assert_close(before[0] - calibration.weight_sums(1).heads_LH[0], expected)
    assert torch.equal(before[1:], calibration.weight_sums(1).heads_LH[1:])


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_who_counts_positions_from_the_padding_id_is_served_so(folders: dict[str, Path], name: str) -> None:
    folder = folders[name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("th!")["input_ids"] == Tokenizer.from_file(str(folder / "tokenizer.json")).encode("th!").ids
    served = TextClassifier()
    served.load_context(SimpleNamespace(artifacts={"model": folder}))
    assert len(served.predict(None, ["the long one " * 40, "short"])) == 2, "64 tokens of 66 positions are read"


@pytest.mark.parametrize("told", [True, False])  # an old config.json tells only from which layer on the window slides
def test_layers_that_attend_by_their_number_attend_so_in_the_student(
    folders: dict[str, Path], tmp_path: Path, told: bool
) -> None:
    folder = Path(shutil.copytree(folders["qwen2"], tmp_path / "parent"))
    sliding = {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}
    kinds = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]} if told else {}
    config = {key: value for key, value in read_config(folder).items() if key != "layer_types"}
    write_json(folder / "config.json", {**config, **sliding, **kinds})
    parent = load_classifier(folder)
    save_classifier(parent, folder, folder)  # as the teacher is saved
    whole = everything(folder)
    student = student_of(folder, layers=[0, 2], heads=whole["heads"][:2], ffn=whole["ffn"][:2])
    assert student.config.layer_types == ["full_attention", "sliding_attention"]
    with without_layers(parent, {1}):
        torch.testing.assert_close(logits(student), logits(parent), atol=1e-6, rtol=1e-5)
    assert parent.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]


def test_an_unknown_architecture_is_refused_with_those_that_are_supported() -> None:
    with pytest.raises(SourceError, match="'gemma' is not supported; allowed: bert, distilbert, roberta, mpnet, gpt2, llama"):
        adapter_of({"model_type": "gemma"})


def test_gpt2_layers_that_scale_by_their_number_are_not_dropped() -> None:
    config = {**CONFIGS["gpt2"], "scale_attn_by_inverse_layer_idx": True}
    adapter = adapter_of(config)
    assert "layers cannot be dropped" in adapter.refusal(config, adapter.shape(config) | {"layers": 2})


def test_a_decoder_without_any_id_for_padding_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = load_classifier(folders["gpt2"])
    model.config.pad_token_id = model.config.eos_token_id = None
    model.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="pad_token_id and eos_token_id are both missing"):
        load_classifier(tmp_path)
