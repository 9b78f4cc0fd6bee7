"""What is wrong with a teacher's folder, told from its JSON files and the headers of its weights, before a weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tasks.errors import Faults, SourceError
from tasks.models.architectures import adapter_of
from tasks.models.architectures.family import Config, Family
from tasks.models.architectures.layout import FUSED, Layout
from tasks.models.causal_lm import is_tied
from tasks.models.head import class_names, rows_by_name
from tasks.models.tokenizer_files import padding_id, read_tokenizer, tokenizer_faults
from tasks.models.weight_files import Stored, read_object, stored_weights

NUMBERS: Final = ("F64", "F32", "F16", "BF16")
CLASSIFIER: Final = "ForSequenceClassification"
SHOWN: Final = 3  # names in a sentence
OLD_NAMES: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # stock classes know them too


@dataclass(frozen=True)
class TeacherWanted:
    """What a run asks of its teacher, as plain values of params.yaml.

    `labels` and `epochs` are a classifier's: data.labels and teacher.epochs. `tokens` says by key of params.yaml how many
    tokens it must read at once.
    """

    labels: Mapping[int, str] | None = None
    epochs: int | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)


def teacher_faults(folder: Path, task: str, wanted: TeacherWanted) -> list[str]:
    """Return what keeps a model folder from being the teacher of a run, a sentence each; nothing where it is fit."""
    faults = Faults()
    with faults.gathered():
        config = read_object(folder / "config.json")
        family = adapter_of(config)
        faults.add(list(_size_faults(folder / "config.json", config, family)), SourceError)
    if faults.lines:  # all else is compared with what config.json says
        return faults.lines
    where = folder / "config.json"
    other_form = list(_form_faults(where, config))
    overruled = [f"{where}: {words}" for words in family.overruled(config)]
    faults.add([*other_form, *overruled, *_length_faults(config, family, wanted.tokens)], SourceError)
    with faults.gathered():
        tokenizer, settings = read_tokenizer(folder)
        faults.add(list(tokenizer_faults(folder, task, config, tokenizer, settings)), SourceError)
        if task == "classification":
            padding_id(where, config, tokenizer, settings)
    with faults.gathered():
        stored = {today(name): weight for name, weight in stored_weights(folder).items()}
        if other_form:  # names and shapes are others, too
            return faults.lines
        faults.add(list(_weight_faults(folder, task, config, family, stored)), SourceError)
        if task == "classification":
            faults.add(list(_head_faults(config, family.layout(config), stored, wanted)), SourceError)
        elif not is_tied(config) and "lm_head.weight" not in stored:
            faults.add(
                [
                    f"{folder}: no weight lm_head.weight, and {where.name} does not say that the head is the embedding; give the "
                    "file with the head, or set tie_word_embeddings: true where the model was trained so"
                ],
                SourceError,
            )
    return faults.lines


def today(name: str) -> str:
    """Return what a weight is called today: old files call those of layer norms gamma and beta."""
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _form_faults(where: Path, config: Config) -> Iterator[str]:
    if config.get("quantization_config"):
        yield f"{where}: quantization_config: the weights are quantised; give the full-precision model"
    if config.get("pruned_heads"):
        yield f"{where}: pruned_heads: layers of different numbers of heads are not supported; give the model before that"
    if (where.parent / "adapter_config.json").is_file():
        yield f"{where.parent}: adapter_config.json: weights of an adapter; merge it into its model and save that"


def _size_faults(where: Path, config: Config, family: Family) -> Iterator[str]:
    needed = [key for axis, key in family.keys.items() if (axis, key) != ("ffn", "n_inner")]
    for key in (*needed, *family.tables):
        if not isinstance(config.get(key), int) or config[key] < 1:
            yield f"{where}: {key}: {config.get(key)!r}; a whole number of at least 1 is needed, give the one of the model"
    heads, kv_heads = config.get(family.keys["heads"]), config.get("num_key_value_heads")
    hidden = config.get(family.keys["hidden"])
    if isinstance(heads, int) and isinstance(hidden, int) and heads > 0 and hidden % heads and not config.get("head_dim"):
        yield f"{where}: {family.keys['hidden']}: {hidden} cannot be divided by {family.keys['heads']}: {heads}"
    if isinstance(heads, int) and kv_heads is not None and (not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads):
        yield f"{where}: num_key_value_heads: {kv_heads!r} does not divide {family.keys['heads']}: {heads}"
    if not isinstance(config.get("pad_token_id"), int | None):
        yield f"{where}: pad_token_id: {config['pad_token_id']!r}; a whole number is needed"


def _length_faults(config: Config, family: Family, tokens: Mapping[str, int]) -> Iterator[str]:
    most = family.positions(config)
    for key, count in tokens.items():
        if most is not None and count > most:
            yield f"params.yaml: {key}: {count} tokens, and the teacher knows positions for {most}; give at most {most}"


def _weight_faults(folder: Path, task: str, config: Config, family: Family, stored: Mapping[str, Stored]) -> Iterator[str]:
    """Yield what the body lacks, what is of another shape than config.json says, and what is no plain number."""
    layout, layers = family.layout(config), family.shape(config)["layers"]
    if layers > len(stored):
        yield f"{folder}: the files hold {len(stored)} weights, and config.json tells of {layers} layers; copy all files"
        return
    named = {layout.full_name(name): weight for name, weight in stored.items()}
    body = [name for name in _body(config, layout, layers) if name.endswith(".weight") or family.norm_weights > 1]
    either = task == "causal_lm" and "lm_head.weight" in stored and is_tied(config)  # of two names for one weight
    tied = {layout.embedding} if either else set()
    if missing := [name for name in body if name not in named and name not in tied]:
        strange = [name for name in stored if layout.full_name(name) not in body]
        yield (
            f"{folder}: {len(missing)} of {len(body)} weights of a {config['model_type']} are missing: {_some(missing)}; the "
            f"files hold others: {_some(strange)}; save the model itself with save_pretrained, not one that wraps it"
        )
    sizes = _sizes(config, family)
    tables = [name for name, axes in layout.outside.items() if axes == (None, "hidden") and not layout.is_head(name)]
    rows = {name: config[key] for name, key in zip(tables, family.tables, strict=True)}
    wrong, packed, beyond, unread = [], [], [], []
    for name, weight in named.items():
        try:
            layer, axes = layout.place(name)
        except (KeyError, ValueError):
            unread += [name] if layout.in_layers(name) else []
            continue
        if layer is not None and layer >= layers:
            beyond.append(name)
            continue
        if weight.dtype not in NUMBERS:
            packed.append(f"{name} ({weight.dtype})")
        wanted = [rows.get(name, size) if axis is None else sizes[axis] for axis, size in zip(axes, weight.shape, strict=False)]
        if len(axes) != len(weight.shape) or wanted != list(weight.shape):
            wrong.append(f"{name} {list(weight.shape)}, where config.json tells of {wanted}")
    if beyond:
        yield f"{folder}: the files hold {_some(beyond)}, and config.json tells of {layers} layers; give the config of the model"
    if unread:
        yield f"{folder}: the class of {config['model_type']} does not read {_some(unread)}; it would be another model"
    if packed:
        yield f"{folder}: {_some(packed)}: quantised; give the full-precision model"
    if wrong:
        yield f"{folder}: weights of another shape: {_some(wrong)}; give the config.json that belongs to them"


def _body(config: Config, layout: Layout, layers: int) -> Iterator[str]:
    yield from (name for name in layout.outside if not layout.is_head(name) and name != "lm_head.weight")
    optional = () if config["model_type"] == "qwen3" else ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
    for layer in range(layers):
        yield from (f"{layout.layers}.{layer}.{name}" for name in layout.inside if name not in optional)


def _sizes(config: Config, family: Family) -> dict[str, int]:
    shape = family.shape(config)
    widths = family.widths(config, shape)
    return {**shape, "each_head": shape["heads"], "heads": widths.A, "qkv": FUSED * widths.A, "pooler": shape["hidden"]}


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "") if names else "none"


def _head_faults(config: Config, layout: Layout, stored: Mapping[str, Stored], wanted: TeacherWanted) -> Iterator[str]:
    """Yield why a head cannot be taken as it is, where it is to be; with epochs to train, any will do."""
    if wanted.epochs != 0 or wanted.labels is None:
        return
    begin, labels = "params.yaml: teacher.epochs: 0 takes the teacher as it is", list(wanted.labels.values())
    named = {layout.full_name(name): weight for name, weight in stored.items()}
    architectures, head = config.get("architectures"), [name for name in layout.outside if layout.is_head(name)]
    architectures = architectures if isinstance(architectures, list) else []
    missing = [name for name in head if name not in named]
    if (architectures and not any(str(name).endswith(CLASSIFIER) for name in architectures)) or missing:
        yield (
            f"{begin}, but it has no classification head (architectures: {architectures}, missing: {_some(missing)}); "
            "set teacher.epochs to 1 or more to fine-tune it"
        )
        return
    rows = next((named[name].shape or (0,))[0] for name in head if layout.outside[name][0] is None)
    names = class_names(config)
    if rows != len(labels):
        yield f"{begin}, but its head has {rows} classes and data.labels {len(labels)}; set teacher.epochs to 1 or more"
    elif names is not None and rows_by_name(names, wanted.labels) is None:
        yield (
            f"{begin}, but its classes are {', '.join(map(repr, names))} (config.json: id2label) and data.labels are "
            f"{', '.join(map(repr, labels))}; call the classes of data.labels as the teacher does"
        )
