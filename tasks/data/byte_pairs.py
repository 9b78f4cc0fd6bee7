"""A smaller byte-level BPE vocabulary (GPT-2, RoBERTa, Llama 3, Qwen): which tokens stay, and the tokenizer that uses them.

The 256 bytes stay, so every text can be written; and with a token stay the two parts that it is merged from, theirs, and so
on. Merges keep their order, and each one stays whose parts and result stay. So a text that the parent writes with kept tokens
alone is written by the student with the same ones: every merge that the parent makes on the way is there, and no other comes
before it. Source of the encoding: Sennrich et al., arXiv:1508.07909; over bytes: Radford et al., 2019 (GPT-2), section 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel

from tasks.errors import ParamsError

ALPHABET: Final = frozenset(ByteLevel.alphabet())  # one character for each byte
BYTE_FALLBACK: Final = re.compile(r"<0x[0-9A-F]{2}>")  # how tokenizers that are not byte-level write a single byte
END_BYTES: Final = 1  # of a special token: the border of two documents is worth one byte

Pair = tuple[str, str]


def is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json is a BPE one whose tokens are written as bytes."""
    splitter = tokenizer.get("pre_tokenizer") or {}
    kinds = {step["type"] for step in (splitter, *splitter.get("pretokenizers", ())) if step}
    return bool(tokenizer["model"].get("type") == "BPE" and "ByteLevel" in kinds)


def ids_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of every token of a tokenizer.json, those that were added to its vocabulary included."""
    return {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}


def token_bytes(tokenizer: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return how many UTF-8 bytes of text each id stands for; a special token, which is no text, counts as one."""
    ids = ids_of(tokenizer)
    sizes = np.zeros(max(ids.values()) + 1, dtype=np.int64)
    level = is_byte_level(tokenizer)
    for token, number in tokenizer["model"]["vocab"].items():
        sizes[number] = len(token) if level else _plain_bytes(token)
    for added in tokenizer["added_tokens"]:
        sizes[added["id"]] = END_BYTES if added["special"] else len(added["content"].encode())
    return sizes


def _plain_bytes(token: str) -> int:
    return 1 if BYTE_FALLBACK.fullmatch(token) else len(token.replace("▁", " ").encode())


def choose_tokens(tokenizer: Mapping[str, Any], counts: NDArray[np.int64], size: int, needed: Iterable[int] = ()) -> list[int]:
    """Return the ids to keep, ascending: added tokens, the bytes, `needed`, then by count, each with all its parts.

    A token whose missing parts find no room is passed over; ties go to the lower id; tokens that do not occur stay as parts
    alone, so the ids may be fewer than `size`. Raises ParamsError when what must stay is more than `size`, or when there are
    not so many tokens.
    """
    parts, kept = _ids_of_parts(tokenizer), check_size(tokenizer, size, needed)
    order = sorted((number for number in parts if counts[number] > 0), key=lambda number: (-int(counts[number]), number))
    before = -1
    while before < len(kept) < size:  # another round finds the parts that a passed-over token left room for
        before = len(kept)
        for number in order:
            wanted = _missing(number, kept, parts)
            if len(kept) + len(wanted) <= size:
                kept |= wanted
    return sorted(kept)


def check_size(tokenizer: Mapping[str, Any], size: int, needed: Iterable[int] = ()) -> set[int]:
    """Return the ids that must stay; ParamsError unless they are at most `size`, and all tokens at least."""
    ids, parts = ids_of(tokenizer), _ids_of_parts(tokenizer)
    must = [*(token["id"] for token in tokenizer["added_tokens"]), *(ids[byte] for byte in ALPHABET if byte in ids)]
    must += [number for number in needed if number in parts]  # a config may name one that its model has not
    kept: set[int] = set()
    for number in must:
        kept |= _missing(number, kept, parts)
    if not len(kept) <= size <= len(parts):
        raise ParamsError(
            f"params.yaml: rounds: vocabulary = {size}: the {len(kept)} bytes and special tokens must stay, and the "
            f"tokenizer has {len(parts)} tokens; allowed: from {len(kept)} to {len(parts)}"
        )
    return kept


def _ids_of_parts(tokenizer: Mapping[str, Any]) -> dict[int, list[int]]:
    """Return the ids of the parts of every id; none for a token that no merge makes. ParamsError for a merge of no tokens."""
    ids = ids_of(tokenizer)
    try:
        parts = parts_of(tokenizer)
        return {number: [ids[part] for part in parts.get(token, ())] for token, number in ids.items()}
    except (KeyError, ValueError) as error:
        raise ParamsError(
            f"tokenizer.json: model.merges names a pair that is no two tokens of its vocabulary ({error}); "
            "give the file that save_pretrained writes"
        ) from None


def _missing(number: int, kept: set[int], parts: Mapping[int, list[int]]) -> set[int]:
    """Return a token and its parts, all the way down, as far as they are not kept yet."""
    missing: set[int] = set()
    waiting = [number]
    while waiting:
        part = waiting.pop()
        if part not in kept and part not in missing:
            missing.add(part)
            waiting += parts[part]
    return missing


def merges_of(tokenizer: Mapping[str, Any]) -> list[Pair]:
    """Return the merges of a tokenizer.json in their order; older files write both parts in one string."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in tokenizer["model"]["merges"])
    return [(first, second) for first, second in pairs]


def parts_of(tokenizer: Mapping[str, Any]) -> dict[str, Pair]:
    """Return the two parts that each token is merged from; bytes, and tokens that no merge makes, are not listed."""
    merges = merges_of(tokenizer)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ways: dict[str, list[Pair]] = {}
    for pair in ranks:
        ways.setdefault("".join(pair), []).append(pair)
    last = {token: pairs[0] if len(pairs) == 1 else _last_merge(token, ranks) for token, pairs in ways.items()}
    return {token: pair for token, pair in last.items() if pair is not None}


def _last_merge(token: str, ranks: Mapping[Pair, int]) -> Pair | None:
    """Return the last of the merges that write a token's bytes, None when they do not end in this token."""
    symbols = list(token)
    while len(symbols) > 1:
        pairs = list(pairwise(symbols))
        place = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], len(ranks)))
        if pairs[place] not in ranks:
            return None
        if len(symbols) == 2:
            return pairs[0]
        symbols[place : place + 2] = ["".join(pairs[place])]
    return None


def smaller_byte_pairs(tokenizer: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Return the vocabulary and merges of the tokens that stay, as the `model` of a tokenizer.json."""
    model = tokenizer["model"]
    vocab = {token: new_ids[old] for token, old in model["vocab"].items() if old in new_ids}
    merges = [
        merge
        for merge, (first, second) in zip(model["merges"], merges_of(tokenizer), strict=True)
        if first in vocab and second in vocab and first + second in vocab
    ]
    return {**model, "vocab": vocab, "merges": merges}
