"""The one door to transformers: loads and saves models and tokenizers as plain Hugging Face folders."""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a stage reads what `fetch` brought, never the network

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import SourceError
from tasks.files import read_json
from tasks.models.architectures import adapter_of
from tasks.models.causal_lm import is_tied
from tasks.models.head import class_names, rows_by_name
from tasks.models.tokenizer_files import folder_padding, name_padding

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

AS_IT_IS: Final = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
TOLD: Final = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # what does not fit is looked at here
TRIED: Final = ("A Caf\u00e9's 12 Plots", " went  on\nand on.", "")  # case, accents, blanks, ends: what settings change
LIBRARY_ERRORS: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, ImportError, NotImplementedError, struct.error),
    *(SafetensorError, StrictDataclassError),
)
SINGLE_LABEL: Final = "single_label_classification"
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "chat_template.jinja",
)


def load_classifier(folder: Path) -> Any:
    """Return the sequence classifier of a folder, fp32, in eval mode; SourceError unless it has all its weights.

    Only safetensors are read and no code of the folder is run.
    """
    return _classifier(folder, {})[0]


def load_teacher(folder: Path, labels: Mapping[int, str]) -> tuple[Any, list[str]]:
    """Return a classifier of the classes of `labels`, and a line for each thing that is not as the folder has it.

    A head of these classes answers them in this order. Without one, a head is made from the current torch seed.
    """
    config, lines = read_config(folder), list[str]()
    wanted = {"num_labels": len(labels), "id2label": dict(labels), "label2id": {v: k for k, v in labels.items()}}
    if config.get("problem_type") not in (None, SINGLE_LABEL):
        wanted["problem_type"] = SINGLE_LABEL
        lines.append(f"config.json: problem_type: {config['problem_type']} became {SINGLE_LABEL}")
    model, made = _classifier(folder, wanted, new_head=True)
    refuse_broken(folder, model)
    given = folder_padding(folder)
    if given != config.get("pad_token_id"):
        lines.append(f"config.json: pad_token_id: {config.get('pad_token_id')} became {given}")
    if made:
        return model, [*lines, f"new weights, drawn from the seed: {', '.join(made)}"]
    names = class_names(config)
    rows = None if names is None else rows_by_name(names, labels)
    if rows is None:
        of = "whose classes have no names" if names is None else f"of the classes {', '.join(names)}"
        lines.append(f"the head starts with the teacher's rows, {of}, in their order")
    elif rows != sorted(rows):
        _permute_head(model, rows)
        lines.append(
            f"the rows of the head follow data.labels: {', '.join(f'{labels[i]} was {row}' for i, row in enumerate(rows))}"
        )
    return model, lines


def _classifier(folder: Path, wanted: Mapping[str, Any], new_head: bool = False) -> tuple[Any, list[str]]:
    """Return the classifier of a folder and the names of the weights of its head that it lacks, allowed with `new_head`."""
    pad, wrong = folder_padding(folder), read_config(folder).get("pad_token_id")
    if wrong != pad:  # an embedding refuses to be made with an id that it has not
        wanted = {**wanted, "pad_token_id": None}
    with _loading(folder):
        model, report = AutoModelForSequenceClassification.from_pretrained(folder, **AS_IT_IS, **TOLD, **wanted)
    if pad is not None:
        model.config.pad_token_id = pad
    return model.eval(), _lacking(folder, model, report, new_head)


@contextmanager
def _loading(place: Path) -> Iterator[None]:
    """Raise SourceError where the library cannot make a model or tokenizer of a place, in any of the ways that it tells so."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        words = " ".join(str(error).split())
        raise SourceError(
            f"{place}: stock classes cannot load it ({type(error).__name__}: {words}); mend its config.json and "
            "tokenizer_config.json, or save it anew with save_pretrained"
        ) from error


def _lacking(folder: Path, model: Any, report: Mapping[str, Any], new_head: bool) -> list[str]:
    """Return which weights a folder lacks or has of another shape; SourceError for one of the body, and for unknown layers."""
    layout = adapter_of(model.config.to_dict()).layout(model.config.to_dict())
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if strange := [name for name in lacking if not (new_head and layout.is_head(name))]:
        raise SourceError(
            f"{folder}: {len(strange)} weights are missing, or of another shape than config.json says: {', '.join(strange[:3])}; "
            f"the files hold others, such as {', '.join(sorted(report['unexpected_keys'])[:3]) or 'none'}; "
            "save the model itself with save_pretrained, not one that wraps it"
        )
    if unread := sorted(filter(layout.in_layers, report["unexpected_keys"])):
        raise SourceError(
            f"{folder}: its files hold weights of layers that the class does not read, such as {unread[0]}; it would be another "
            "model: give the config.json that belongs to them"
        )
    return lacking


def _permute_head(model: Any, rows: Sequence[int]) -> None:
    """Reorder the classes of a head; `rows` gives the old row of each."""
    layout = adapter_of(model.config.to_dict()).layout(model.config.to_dict())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if layout.is_head(name) and layout.outside[name][0] is None:
                weight.copy_(weight[list(rows)].clone())


def refuse_broken(folder: Path, model: Any) -> None:
    """Raise SourceError where a weight of a model, which came from `folder`, is no finite number."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise SourceError(f"{folder}: {name} holds numbers that are not finite (NaN or infinite); give sound weights")


def refuse_other_tokens(folder: Path, pairs: bool = False) -> None:
    """Raise SourceError where the stock tokenizer of a folder reads texts, or pairs too, otherwise than its tokenizer.json."""
    with _loading(folder):
        stock = AutoTokenizer.from_pretrained(folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    for text in TRIED:
        if stock(text)["input_ids"] != own.encode(text).ids:
            raise SourceError(
                f"{folder / 'tokenizer_config.json'}: its settings make stock classes read {text!r} as other tokens than "
                "tokenizer.json alone; save the tokenizer that AutoTokenizer loads with save_pretrained, and give that"
            )
    types = int(read_config(folder).get("type_vocab_size") or 0) > 1
    for text in TRIED[:2] if pairs else ():  # no text of a row is empty
        read, wanted = stock(TRIED[0], text), own.encode(TRIED[0], text)
        told = read.get("token_type_ids", [0] * len(wanted.ids)) if types else wanted.type_ids
        if read["input_ids"] != wanted.ids or told != wanted.type_ids:
            raise SourceError(
                f"{folder / 'tokenizer_config.json'}: its settings make stock classes read the pair {TRIED[0]!r} and {text!r} as "
                "other tokens, or types of tokens, than tokenizer.json alone; save the tokenizer that AutoTokenizer loads with "
                "save_pretrained, and give that"
            )


def end_id(config: Mapping[str, Any]) -> int:
    """Return the id that ends a text, by config.json; SourceError where there is none."""
    ends = config.get("eos_token_id")
    first = ends[0] if isinstance(ends, list) else ends
    if first is None:
        raise SourceError("teacher.model: config.json: eos_token_id is missing; give it the id that ends a text")
    return int(first)


def pad_id(model: Any) -> int:
    """Return the id that fills the short rows of a batch."""
    return int(model.config.pad_token_id or 0)


def attend_plainly(model: Any, device: torch.device) -> None:
    """Make the model compute attention as plain matrix products on a CPU; elsewhere nothing changes.

    At a classifier's lengths that is the faster way in bf16: the fused kernel of torch 2.13 is slow there, in its backward pass
    most of all. The results differ by rounding alone, and nothing of it is saved.
    """
    if device.type == "cpu":
        model.set_attn_implementation("eager")


def attend_with(model: Any, name: str, attention: Callable[..., Any]) -> None:
    """Make the model compute attention as `attention(fused, module, ...)`, with what transformers gives such a function.

    `fused` is the one that calls torch's own kernel, and takes the same. What tokens see is told as it is told to that one.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(name, functools.partial(attention, sdpa_attention_forward))
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def preload() -> None:
    """Import what every model needs now, so that the first one does not wait for it."""
    import transformers.modeling_layers
    import transformers.modeling_utils  # noqa: F401


def classifier_from_config(config: dict[str, Any]) -> Any:
    """Return a sequence classifier of this config with random weights from the current torch seed, in eval mode."""
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config)).eval()


def load_causal_lm(folder: Path) -> Any:
    """Return the language model of a folder, fp32, in eval mode; SourceError unless it has all its weights.

    Only safetensors are read and no code of the folder is run.
    """
    config = read_config(folder)
    pad = config.get("pad_token_id")
    wanted = {"pad_token_id": None} if pad is not None and not 0 <= pad < config["vocab_size"] else {}
    with _loading(folder):
        model, report = AutoModelForCausalLM.from_pretrained(folder, **AS_IT_IS, **TOLD, **wanted)
    _lacking(folder, model, report, new_head=False)
    if is_tied(config) != (model.get_output_embeddings().weight is model.get_input_embeddings().weight):
        raise SourceError(
            f"{folder}: config.json: tie_word_embeddings: {is_tied(config)}, but the head and the embedding differ in its files; "
            "set it to false to keep both, or take lm_head.weight out"
        )
    return model.eval()


def causal_lm_from_config(config: dict[str, Any]) -> Any:
    """Return a language model of this config with random weights from the current torch seed, in eval mode."""
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()


def unpack_gguf(file: Path, out: Path) -> None:
    """Write the language model of a GGUF file, de-quantised to fp32, and its tokenizer as a plain folder."""
    with _loading(file):
        packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = packed.config.to_dict()
    config.pop("quantization_config", None)  # the weights are plain numbers now
    model = causal_lm_from_config(config)
    load_weights(model, weights_of(packed))
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights of a model on the CPU by name; of those that share their memory, the first alone."""
    by_memory: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in model.state_dict().items():
        by_memory.setdefault(value.data_ptr(), (name, value.detach().cpu().contiguous()))
    return dict(by_memory.values())


def load_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Give a model the weights that `weights_of` or its safetensors file holds; one that is tied follows the other."""
    tied = set(model.state_dict()) - set(weights_of(model))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= tied, f"weights are missing: {sorted(set(missing) - tied)}"
    assert not unexpected, f"the model has no {unexpected}"


def save_causal_lm(model: Any, tokenizer_folder: Path, out: Path) -> None:
    """Write a stock Hugging Face folder: config.json, model.safetensors and the tokenizer's files."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out, save_original_format=False)  # every weight under the name that it has today
    copy_tokenizer(tokenizer_folder, out)


def bound_length(folder: Path) -> None:
    """Let the tokenizer of a teacher cut texts at the positions that the model has, where it names no length or a greater one.

    Stock pipelines ask it alone, and a longer text would end them. What tokenizer.json itself cuts and pads goes: stock classes
    overrule it, and whoever reads it alone would get every text as long as its makers' batches. Students have their teacher's
    settings.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    if tokenizer.get("padding") or tokenizer.get("truncation"):
        bare = {**tokenizer, "padding": None, "truncation": None}
        (folder / "tokenizer.json").write_text(json.dumps(bare, ensure_ascii=False, indent=1), encoding="utf-8")
    config, settings_file = read_config(folder), folder / "tokenizer_config.json"
    most = adapter_of(config).positions(config)
    settings = read_json(settings_file) if settings_file.exists() else None
    if settings is not None and most is not None and settings.get("model_max_length", most + 1) > most:
        settings_file.write_text(json.dumps({**settings, "model_max_length": most}, indent=1, sort_keys=True), encoding="utf-8")


def save_classifier(model: Any, tokenizer_folder: Path, out: Path) -> None:
    """Write a stock Hugging Face folder: config.json, model.safetensors and the tokenizer's files."""
    save_causal_lm(model, tokenizer_folder, out)
    name_padding(out, pad_id(model))


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files of a model folder."""
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source != out:
            shutil.copyfile(source / name, out / name)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
