"""Rows whose words are now and then spelled with shorter pieces: the same text, so what a teacher said of it stays true.

A student meets words cut unusually wherever text is not its task's. Sources: BPE-dropout, Provilkov et al., arXiv:1910.13267;
MaxMatch-dropout for WordPiece, Hiraoka, arXiv:2209.04126.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.data.byte_pairs import ids_of, is_byte_level, parts_of
from tasks.data.tokens import TokenSet
from tasks.data.vocabulary import PREFIX, is_wordpiece, special_pieces

SHORTEST: Final = 4  # letters of a piece that is spelled otherwise: the commonest words stay whole

Spelling = tuple[int, ...]  # ids, none where a token is never spelled otherwise


def spellings_of(tokenizer: Mapping[str, Any]) -> list[Spelling]:
    """Return for each id of a tokenizer.json the ids of its shorter spelling.

    Of WordPiece that is what longest-match-first gives when the piece itself is missing; of byte-level BPE the two parts that it
    was merged from. Special tokens, short pieces and pieces without another spelling have none.
    """
    ids = ids_of(tokenizer)
    found: list[Spelling] = [()] * (max(ids.values()) + 1)
    if is_byte_level(tokenizer):
        for token, parts in parts_of(tokenizer).items():
            if token in ids and len(token) >= SHORTEST and all(part in ids for part in parts):
                found[ids[token]] = tuple(ids[part] for part in parts)
    elif is_wordpiece(tokenizer):
        special = special_pieces(tokenizer)
        for piece, number in ids.items():
            if piece not in special and len(piece.removeprefix(PREFIX)) >= SHORTEST:
                found[number] = _without(piece, ids)
    return found


def _without(piece: str, ids: Mapping[str, int]) -> Spelling:
    """Return the ids that spell a piece of WordPiece without it, longest first; none where they cannot."""
    start = PREFIX if piece.startswith(PREFIX) else ""
    rest, spelled = piece.removeprefix(PREFIX), []
    longest = len(rest) - 1
    while rest:
        cut = next((cut for cut in range(min(longest, len(rest)), 0, -1) if start + rest[:cut] in ids), 0)
        if not cut:
            return ()
        spelled.append(ids[start + rest[:cut]])
        rest, start, longest = rest[cut:], PREFIX, len(rest)
    return tuple(spelled)


def respelled(tokens: TokenSet, spellings: Sequence[Spelling], share: float, longest: int, seed: int) -> TokenSet:
    """Return the rows with this share of the tokens that can be spelled otherwise spelled so.

    No row becomes longer than `longest`. Drawn once from `seed`: a row is the same in every epoch.
    """
    ids, lengths = np.asarray(tokens.ids, dtype=np.int64), tokens.lengths
    sizes = np.array([max(1, len(spelling)) for spelling in spellings])
    able = np.array([bool(spelling) for spelling in spellings])
    chosen = able[ids] & (np.random.default_rng(seed).random(len(ids)) < share)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    more = np.where(chosen, sizes[ids] - 1, 0)
    before = np.concatenate([[0], np.cumsum(more)])
    chosen &= before[1:] - before[tokens.offsets[rows]] <= longest - lengths[rows]
    counts = np.where(chosen, sizes[ids], 1)
    places = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    made: NDArray[np.int32] = np.zeros(int(places[-1]), dtype=np.int32)
    made[places[:-1][~chosen]] = ids[~chosen]
    for place, token in zip(places[:-1][chosen], ids[chosen], strict=True):
        spelling = spellings[token]
        made[place : place + len(spelling)] = spelling
    types = None if tokens.types is None else np.repeat(np.asarray(tokens.types), counts)
    return TokenSet(made, places[tokens.offsets], types)
