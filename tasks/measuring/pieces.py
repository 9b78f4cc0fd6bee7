"""What a student no longer spells as its teacher does: pieces that its vocabulary has lost, and how much longer texts become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.data.tokens import encoded, load_tokenizer
from tasks.files import file_sha256
from tasks.measuring.quality import DIGITS


def pieces_of(texts: Sequence[str], student: Path, teacher: Path) -> dict[str, float]:
    """Return `pieces_lost`, the share of the teacher's tokens of these texts whose piece the student has not, and `tokens_ratio`.

    The latter is the student's tokens over the teacher's, special tokens left out and texts uncut. Both are tokenizer.json files.
    """
    if file_sha256(student) == file_sha256(teacher):
        return {"pieces_lost": 0.0, "tokens_ratio": 1.0}
    own, other = load_tokenizer(student), load_tokenizer(teacher)
    counts = Counter(token for ids in encoded(other, texts, special=False) for token in ids)
    total, known = max(1, counts.total()), own.get_vocab()
    lost = sum(count for token, count in counts.items() if other.id_to_token(token) not in known)
    tokens = sum(len(ids) for ids in encoded(own, texts, special=False))
    return {"pieces_lost": round(lost / total, DIGITS), "tokens_ratio": round(tokens / total, DIGITS)}
