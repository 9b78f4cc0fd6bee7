"""A smaller vocabulary: which of the teacher's pieces stay, and the tokenizer that uses them. Byte-level BPE is in `byte_pairs`.

Dropping a piece of WordPiece never makes a word unknown as long as its characters stay: it is then spelled with shorter
pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.data.byte_pairs import check_size, choose_tokens, ids_of, is_byte_level, smaller_byte_pairs
from tasks.errors import DataError, ParamsError
from tasks.files import file_sha256, read_json

if TYPE_CHECKING:
    import torch

PREFIX = "##"
SPECIAL: Final = ("bos", "eos", "pad", "sep", "cls", "mask", "unk", "decoder_start")
MANDELBROT: Final = 2.7  # so that the first few pieces do not weigh more than they do in text
SPECIAL_IDS: Final = tuple(f"{name}_token_id" for name in SPECIAL)  # as a config.json calls them

PHRASES: Final = ("bad_words_ids", "force_words_ids")  # of generation_config.json: lists of token ids that follow each other
IDS_IN_GENERATION: Final = (
    *SPECIAL_IDS,
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
)


def count_pieces(ids: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Return how often each of `size` token ids occurs."""
    return np.bincount(ids, minlength=size).astype(np.int64)


def choose_pieces(
    pieces: Sequence[str], special: set[str], counts: NDArray[np.int64], size: int, worth: NDArray[np.float64] | None = None
) -> list[int]:
    """Return the ids to keep, ascending: special tokens, single characters that were seen or are ASCII, then by count.

    With `worth` the rest is by that instead. Ties go to the lower id; as many are kept as occur, so the ids may be fewer than
    `size`, and without `worth` none is kept that does not occur. Raises ParamsError when the must-keep pieces alone are more than
    `size`.
    """
    must = [i for i, piece in enumerate(pieces) if piece in special or _is_needed_character(piece, int(counts[i]))]
    if len(must) > size:
        raise ParamsError(
            f"params.yaml: rounds: vocabulary = {size} is too small: special tokens and single characters "
            f"alone are {len(must)} pieces"
        )
    taken, order = set(must), counts if worth is None else worth
    best = [int(i) for i in np.argsort(-order, kind="stable") if order[i] > 0 and int(i) not in taken]
    occurring = sum(int(i) not in taken for i in np.flatnonzero(counts > 0))
    return sorted(must + best[: min(size - len(must), occurring)])


def worth_of(pieces: Sequence[str], special: set[str], counts: NDArray[np.int64], prior: float) -> NDArray[np.float64]:
    """Return what each piece is worth: its share of the counts, mixed with weight `prior` with what its place says.

    Pieces were learnt in order of frequency from much text of every kind, so the one in place r (from 0) is taken to occur like
    1 / (r + 2.7), the law of Zipf and Mandelbrot. Special pieces, single characters and reserved ones ([unused1]) have no place.
    """
    ranked = [i for i, piece in enumerate(pieces) if len(piece.removeprefix(PREFIX)) > 1 and not _is_reserved(piece, special)]
    expected = np.zeros(len(counts))
    expected[ranked] = 1.0 / (np.arange(len(ranked)) + MANDELBROT)
    shares: NDArray[np.float64] = (1.0 - prior) * counts / max(1, int(counts.sum())) + prior * expected / max(
        1e-12, expected.sum()
    )
    return shares


def _is_reserved(piece: str, special: set[str]) -> bool:
    return piece in special or (piece.startswith("[") and piece.endswith("]"))


def _is_needed_character(piece: str, count: int) -> bool:
    character = piece.removeprefix(PREFIX) if len(piece) > len(PREFIX) else piece
    return len(character) == 1 and (count > 0 or (character.isascii() and character.isprintable()))


def check_prunable(tokenizer: Mapping[str, Any], size: int) -> None:
    """Raise ParamsError unless the vocabulary of a tokenizer.json can be pruned, a byte-level one to this size."""
    if is_byte_level(tokenizer):
        check_size(tokenizer, min(size, len(ids_of(tokenizer))))  # rows above the tokens need none
    elif is_wordpiece(tokenizer):
        pieces_in_order(tokenizer)
    else:
        raise ParamsError(
            f"tokenizer.json: model.type {tokenizer['model'].get('type')!r}: vocabulary pruning knows WordPiece and "
            "byte-level BPE; leave rounds.*.vocabulary at the teacher's size"
        )


def check_prior(tokenizer: Mapping[str, Any]) -> None:
    """Raise ParamsError where the order of a tokenizer's pieces says nothing that `worth_of` reads."""
    if not is_wordpiece(tokenizer):
        raise ParamsError(
            "params.yaml: prune.vocabulary_prior is for WordPiece; of another tokenizer those tokens stay that occur most often: "
            "write null"
        )


def kept_ids(
    tokenizer: Mapping[str, Any], counts: NDArray[np.int64], size: int, config: Mapping[str, Any], prior: float | None = None
) -> list[int]:
    """Return the ids to keep, ascending, at most `size`, of a model whose tokens were counted; `config` names its special ids.

    They are fewer where no more occur, are special, or are needed to spell every text: what the data never have goes, and so do
    rows of the embedding that are no token, such as those that pad it to a round number. With a `prior` which ones stay follows
    from `worth_of`, and as many as without. Raises ParamsError when the tokenizer is of another kind, or `size` beyond what it
    can be.
    """
    check_prunable(tokenizer, size)
    counts_from_padding = config.get("model_type") in ("roberta", "mpnet")  # positions are, so that may not move
    below = list(range(int(config["pad_token_id"]) + 1)) if counts_from_padding else []
    needed = special_ids(config) + below
    size = min(size, len(ids_of(tokenizer)))
    if is_wordpiece(tokenizer):
        pieces = pieces_in_order(tokenizer)
        special = special_pieces(tokenizer) | {pieces[i] for i in below}
        worth = None if prior is None else worth_of(pieces, special, counts, prior)
        return choose_pieces(pieces, special, counts, size, worth)
    if prior is not None:
        check_prior(tokenizer)
    return choose_tokens(tokenizer, counts, size, needed)


def most_kept(tokenizer: Mapping[str, Any], counts: NDArray[np.int64], config: Mapping[str, Any]) -> int | None:
    """Return how many ids `kept_ids` keeps at most; None for a tokenizer of a kind that is not made smaller."""
    if not (is_wordpiece(tokenizer) or is_byte_level(tokenizer)):
        return None
    return len(kept_ids(tokenizer, counts, len(ids_of(tokenizer)), config))


def special_ids(config: Mapping[str, Any]) -> list[int]:
    """Return the ids that a config.json names, each once."""
    named = (config.get(key) for key in SPECIAL_IDS)
    return sorted({i for value in named if value is not None for i in (value if isinstance(value, list) else [value])})


def renumbered(config: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return a config whose special ids are those of the student; one that was dropped is none."""
    if list(keep) == list(range(len(keep))):  # all that stays, stays where it was
        return dict(config)
    new_ids = {old: new for new, old in enumerate(keep)}
    named = {key: config[key] for key in SPECIAL_IDS if config.get(key) is not None}
    return dict(config) | {
        key: [new_ids[i] for i in value if i in new_ids] if isinstance(value, list) else new_ids.get(value)
        for key, value in named.items()
    }


def renumbered_generation(settings: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return a generation_config.json whose token ids are those of the student; lists lose those that were dropped."""
    new_ids = {old: new for new, old in enumerate(keep)}

    def moved(value: Any) -> Any:
        """Return ids, or lists of them, by their new numbers; a phrase of which a token is gone is none."""
        if isinstance(value, list):
            return [new for new in map(moved, value) if new is not None]
        return new_ids.get(value)

    def phrases(value: list[list[int]]) -> list[list[int]]:
        return [moved(phrase) for phrase in value if set(phrase) <= new_ids.keys()]

    changed = {
        key: phrases(value) if key in PHRASES else moved(value)
        for key, value in settings.items()
        if value is not None and (key in PHRASES or key in IDS_IN_GENERATION)
    }
    if biases := settings.get("sequence_bias"):
        changed["sequence_bias"] = [[moved(phrase), bias] for phrase, bias in biases if set(phrase) <= new_ids.keys()]
    return {**settings, **changed}


def is_wordpiece(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer.json is a WordPiece one; old ones do not say."""
    return bool(tokenizer["model"].get("type", "WordPiece") == "WordPiece")


def pieces_in_order(tokenizer: Mapping[str, Any]) -> list[str]:
    """Return the pieces of a tokenizer.json by id, added tokens too; ParamsError unless it is WordPiece with ids 0, 1, 2, ..."""
    if not is_wordpiece(tokenizer):
        raise ParamsError(f"tokenizer.json: model.type {tokenizer['model'].get('type')!r} is not WordPiece")
    ids = ids_of(tokenizer)
    pieces = sorted(ids, key=ids.__getitem__)
    for place, piece in enumerate(pieces):
        if ids[piece] != place:
            raise ParamsError(
                f"tokenizer.json: {piece!r} has id {ids[piece]}, where {place} comes next; its vocabulary can be pruned when ids "
                "are 0, 1, 2, ...; leave rounds.*.vocabulary at the teacher's size"
            )
    return pieces


def ids_at_teacher(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the teacher's id of each id of a student, from two tokenizer.json; DataError unless it has all its pieces."""
    ids, of_teacher = ids_of(student), ids_of(teacher)
    strange = [piece for piece in ids if piece not in of_teacher]
    if strange:
        raise DataError(f"the student's piece {strange[0]!r} is none of the teacher's; run `dvc repro prepare`")
    at_teacher = np.arange(max(ids.values()) + 1, dtype=np.int64)
    at_teacher[list(ids.values())] = [of_teacher[piece] for piece in ids]
    return at_teacher


def special_pieces(tokenizer: Mapping[str, Any]) -> set[str]:
    """Return the special tokens of a tokenizer.json, the unknown token included."""
    return {token["content"] for token in tokenizer["added_tokens"]} | {tokenizer["model"]["unk_token"]}


def smaller_tokenizer(tokenizer: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return a tokenizer.json with only the kept ids, renumbered in order."""
    new_ids = {old: new for new, old in enumerate(keep)}
    if is_wordpiece(tokenizer):
        vocab = tokenizer["model"]["vocab"]
        pieces = [piece for piece in sorted(vocab, key=vocab.__getitem__) if vocab[piece] in new_ids]
        model = {**tokenizer["model"], "vocab": {piece: new_ids[vocab[piece]] for piece in pieces}}
    else:
        model = smaller_byte_pairs(tokenizer, new_ids)
    added = [{**token, "id": new_ids[token["id"]]} for token in tokenizer["added_tokens"]]
    processor = _renumber(tokenizer.get("post_processor"), ids_of({"model": model, "added_tokens": added}))
    return {**tokenizer, "added_tokens": added, "model": model, "post_processor": processor}


def smaller_settings(settings: Mapping[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """Return a tokenizer_config.json whose added tokens have their new ids."""
    if "added_tokens_decoder" not in settings:
        return dict(settings)
    new_ids = {str(old): str(new) for new, old in enumerate(keep)}
    added = {new_ids[old]: token for old, token in settings["added_tokens_decoder"].items() if old in new_ids}
    return {**settings, "added_tokens_decoder": added}


def _renumber(processor: Any, new_ids: Mapping[str, int]) -> Any:
    """Return a post-processor whose special tokens carry their new ids."""
    kind = processor["type"] if processor is not None else None
    if kind == "TemplateProcessing":
        special = processor["special_tokens"].items()
        ids = {name: {**entry, "ids": [new_ids[token] for token in entry["tokens"]]} for name, entry in special}
        return {**processor, "special_tokens": ids}
    if kind == "Sequence":
        return {**processor, "processors": [_renumber(step, new_ids) for step in processor["processors"]]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{end: [processor[end][0], new_ids[processor[end][0]]] for end in ("sep", "cls")}}
    return processor


def kept_at_teacher(tokens: Path, teacher: Path, rows: tuple[int, int] = (0, 0)) -> torch.Tensor | None:
    """Return the teacher's id of each of a student's tokens, int64 (V,); None where the tokenizers are the same.

    Both are folders with a tokenizer.json; `rows` are those of the embeddings of student and teacher, of which the last may be
    no tokens. Raises DataError when the student has a token that the teacher has not.
    """
    import torch

    if rows[0] == rows[1] and file_sha256(tokens / "tokenizer.json") == file_sha256(teacher / "tokenizer.json"):
        return None
    ids = ids_at_teacher(*(read_json(folder / "tokenizer.json") for folder in (tokens, teacher)))
    empty = sorted(set(range(rows[1])) - set(ids.tolist()))[: max(0, rows[0] - len(ids))]
    return torch.from_numpy(np.concatenate([ids, np.array(empty, dtype=np.int64)]))
