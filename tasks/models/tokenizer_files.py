"""The files of a model folder's tokenizer: which ids its tokens have, what pads a text, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import SourceError
from tasks.files import read_json
from tasks.models.architectures import adapter_of
from tasks.models.architectures.family import Config
from tasks.models.weight_files import read_object

USUAL_CLASS: Final = {
    **dict.fromkeys(("bert", "distilbert"), "BertTokenizer"),
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
}
OVERRIDING: Final = {  # tokenizer_class -> settings that change a part of tokenizer.json, and what they are if left out
    "BertTokenizer": [("do_lower_case", True, "normalizer")],
    "DistilBertTokenizer": [("do_lower_case", True, "normalizer")],
    "MPNetTokenizer": [("do_lower_case", True, "normalizer")],
    "RobertaTokenizer": [("add_prefix_space", False, "pre_tokenizer")],
}


def read_tokenizer(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tokenizer.json and tokenizer_config.json of a folder, nothing of the latter where it has none; SourceError."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    sound = isinstance(vocab, list) or (isinstance(vocab, dict) and all(isinstance(number, int) for number in vocab.values()))
    tokens: list[Any] = added if isinstance(added, list) else [None]
    sound = sound and all(isinstance(token, dict) and isinstance(token.get("id"), int) for token in tokens)
    if not sound or not all(isinstance(token.get("content"), str) for token in tokens):
        raise SourceError(f"{path}: no tokenizer with a vocabulary; save the fast tokenizer with save_pretrained")
    settings = folder / "tokenizer_config.json"
    return tokenizer, read_object(settings) if settings.is_file() else {}


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of each token of a tokenizer.json, with those that were added; a Unigram one lists them by id."""
    vocab = tokenizer["model"]["vocab"]
    listed = vocab if isinstance(vocab, dict) else {str(entry[0]): number for number, entry in enumerate(vocab)}
    return {**listed, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}}


def padding_id(where: Path, config: Config, tokenizer: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Return the id that pads the texts of a classifier: a decoder's tokenizer names it, else config.json, else eos does.

    A decoder classifies by its last token that is not padding, so one id must mean padding, in training and ever after; the
    id that ends a text is one that no text holds. An encoder keeps that of config.json. None where config.json may leave it
    out. SourceError naming `where`, its config.json, if there is none.
    """
    reads_last, rows = adapter_of(config).READS == "last", config["vocab_size"]
    pad = _content(settings.get("pad_token"))
    named = None if pad is None else token_ids(tokenizer).get(pad)
    given, ends = config.get("pad_token_id"), config.get("eos_token_id")
    sound = given is not None and 0 <= given < rows
    if not reads_last:
        if given is not None and not sound:
            raise SourceError(f"{where}: pad_token_id: {given} is none of the {rows} rows of the embedding; give the tokenizer's")
        if adapter_of(config).reserved(config) and named is not None and named != (1 if given is None else given):
            raise SourceError(
                f"{where}: pad_token_id: {given}, and the tokenizer pads with {named}; positions are counted from it"
            )
        return given
    end = ends[0] if isinstance(ends, list) and ends else ends
    chosen = named if named is not None else given if sound else end
    if not isinstance(chosen, int) or not 0 <= chosen < rows:
        raise SourceError(
            f"{where}: pad_token_id and eos_token_id are both missing; give pad_token_id the id of a token that no text holds"
        )
    return chosen


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def tokenizer_faults(
    folder: Path, task: str, config: Config, tokenizer: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[str]:
    ids, rows = token_ids(tokenizer), config["vocab_size"]
    last = max(ids, key=ids.__getitem__, default="")
    if not ids or ids[last] >= rows:
        yield (
            f"{folder / 'tokenizer.json'}: token {last!r} has id {ids.get(last)}, and the embedding {rows} rows (config.json: "
            "vocab_size); save the model after model.resize_token_embeddings(len(tokenizer)), or give the tokenizer it came with"
        )
    if tokenizer["model"].get("dropout"):
        yield f"{folder / 'tokenizer.json'}: model.dropout: a text would be cut otherwise each time; set it to null"
    pad = _content(settings.get("pad_token"))
    if task == "classification" and pad is not None and pad not in ids:
        yield f"{folder / 'tokenizer_config.json'}: pad_token: {pad!r} is no token of tokenizer.json; name one that is"
    kind = str(settings.get("tokenizer_class") or USUAL_CLASS.get(config["model_type"])).removesuffix("Fast")
    for key, assumed, part in OVERRIDING.get(kind, ()):
        stored, given = tokenizer.get(part), settings.get(key)
        inner = stored.get(key.removeprefix("do_").replace("lower_case", "lowercase")) if isinstance(stored, dict) else None
        if inner is not None and inner != (assumed if given is None else given):
            yield (
                f"{folder / 'tokenizer_config.json'}: {key}: {given}, and {part} in tokenizer.json says {inner}; stock classes "
                "follow the first, so both must say the same: save_pretrained of the tokenizer writes them so"
            )
    for what, why in (
        ("truncation", "long texts are cut at their end here"),
        ("padding", "its positions are counted from the first token, so that an answer would depend on the batch"),
    ):
        stored = tokenizer.get(what)
        rotary = adapter_of(config).positions(config) is None or adapter_of(config).reserved(config)
        if task != "classification" or (what == "padding" and rotary):
            continue
        side = settings.get(f"{what}_side") or (stored.get("direction") if isinstance(stored, dict) else None)
        if str(side).lower() == "left":
            yield f"{folder / 'tokenizer_config.json'}: {what}_side: left is not supported, {why}; set it to right"


def folder_padding(folder: Path) -> int | None:
    """Return the id that pads the texts of a classifier's folder: `padding_id`, by its own files."""
    none: tuple[dict[str, Any], dict[str, Any]] = {"model": {"vocab": {}}}, {}
    files = read_tokenizer(folder) if (folder / "tokenizer.json").exists() else none
    return padding_id(folder / "config.json", read_json(folder / "config.json"), *files)


def name_padding(folder: Path, pad: int) -> None:
    """Give a byte-pair tokenizer that has no padding token of its own that of its model; stock tokenizers refuse to pad else."""
    settings_file, tokenizer_file = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (settings_file.exists() and tokenizer_file.exists()):
        return
    settings = read_json(settings_file)
    tokenizer = read_json(tokenizer_file)
    if tokenizer["model"].get("type") != "BPE" or settings.get("pad_token") is not None:
        return
    name = next(token for token, number in token_ids(tokenizer).items() if number == pad)
    settings_file.write_text(json.dumps({**settings, "pad_token": name}, indent=1, sort_keys=True), encoding="utf-8")
