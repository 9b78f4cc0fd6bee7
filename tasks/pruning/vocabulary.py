"""A smaller WordPiece vocabulary: which pieces stay, and the tokenizer that uses them.

Dropping a piece never makes a word unknown as long as its characters stay: WordPiece then spells it with shorter
pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ParamsError

PREFIX = "##"


def count_pieces(ids: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Return how often each of `size` token ids occurs."""
    return np.bincount(ids, minlength=size).astype(np.int64)


def choose_pieces(pieces: Sequence[str], special: set[str], counts: NDArray[np.int64], size: int) -> list[int]:
    """Return the ids to keep, ascending: special tokens, single characters that were seen or are ASCII, then by count.

    Ties go to the lower id. Raises ParamsError when the must-keep pieces alone are more than `size`.
    """
    must = [i for i, piece in enumerate(pieces) if piece in special or _is_needed_character(piece, int(counts[i]))]
    if len(must) > size:
        raise ParamsError(
            f"params.yaml: rounds: vocabulary = {size} is too small: special tokens and single characters "
            f"alone are {len(must)} pieces"
        )
    taken = set(must)
    by_count = [int(i) for i in np.argsort(-counts, kind="stable") if int(i) not in taken]
    return sorted(must + by_count[: size - len(must)])


def _is_needed_character(piece: str, count: int) -> bool:
    character = piece.removeprefix(PREFIX) if len(piece) > len(PREFIX) else piece
    return len(character) == 1 and (count > 0 or (character.isascii() and character.isprintable()))


def is_wordpiece(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json is a WordPiece one; old ones do not say."""
    return bool(tokenizer["model"].get("type", "WordPiece") == "WordPiece")


def pieces_in_order(tokenizer: Mapping[str, Any]) -> list[str]:
    """Return the pieces of a tokenizer.json by id; ParamsError unless it is a WordPiece one with ids 0, 1, 2, ..."""
    model = tokenizer["model"]
    if not is_wordpiece(tokenizer):
        raise ParamsError(
            f"tokenizer.json: model.type {model.get('type')!r}: vocabulary pruning knows WordPiece; "
            "leave rounds.*.vocabulary at the teacher's size"
        )
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    assert [model["vocab"][piece] for piece in pieces] == list(range(len(pieces))), "ids must be 0, 1, 2, ..."
    return pieces


def ids_at_teacher(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the teacher's id of each id of a student, whose pieces are all the teacher's; from two tokenizer.json."""
    if not is_wordpiece(student):  # byte-pair vocabularies are never pruned
        added = {token["id"] for token in student["added_tokens"]}
        return np.arange(len(set(student["model"]["vocab"].values()) | added), dtype=np.int64)
    ids = teacher["model"]["vocab"]
    return np.array([ids[piece] for piece in pieces_in_order(student)], dtype=np.int64)


def special_pieces(tokenizer: Mapping[str, Any]) -> set[str]:
    """Return the special tokens of a tokenizer.json, the unknown token included."""
    return {token["content"] for token in tokenizer["added_tokens"]} | {tokenizer["model"]["unk_token"]}


def smaller_tokenizer(tokenizer: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return a tokenizer.json with only the kept ids, renumbered in order."""
    pieces = pieces_in_order(tokenizer)
    new_id = {pieces[old]: new for new, old in enumerate(keep)}
    added = [{**token, "id": new_id[token["content"]]} for token in tokenizer["added_tokens"]]
    return {
        **tokenizer,
        "added_tokens": added,
        "model": {**tokenizer["model"], "vocab": new_id},
        "post_processor": _renumber(tokenizer.get("post_processor"), new_id),
    }


def _renumber(processor: Any, new_id: Mapping[str, int]) -> Any:
    """Return a post-processor whose special tokens carry their new ids."""
    if processor is None:
        return None
    processor = dict(processor)
    if processor["type"] == "TemplateProcessing":
        processor["special_tokens"] = {
            name: {**entry, "ids": [new_id[token] for token in entry["tokens"]]}
            for name, entry in processor["special_tokens"].items()
        }
    elif processor["type"] == "BertProcessing":
        for end in ("sep", "cls"):
            processor[end] = [processor[end][0], new_id[processor[end][0]]]
    return processor
