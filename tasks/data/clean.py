"""Text as the pipeline sees it: cleaned once, named by its content, cut into sentences."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

_TAG: Final = re.compile(r"<[A-Za-z/!][^<>]*>")  # `a < b` is no tag: a name, a slash or a bang must follow
# A sentence ends at its stop (and closing quotes) before white space and something that can begin the next one.
_END: Final = re.compile(r"[.!?…]+[\"'”\u2019)\]]*\s+(?=[\"'“\u2018(\[]?[A-Z0-9])")
_TITLES: Final = frozenset({"Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Sgt", "Lt", "vs"})


def clean_text(text: str) -> str:
    """Return `text` in NFC with HTML tags and runs of white space as single spaces; cleaning twice changes nothing."""
    text = unicodedata.normalize("NFC", text)
    while (stripped := _TAG.sub(" ", text)) != text:  # taking out a tag may join the halves of another one
        text = stripped
    return " ".join(text.split())


def row_id(cleaned: str) -> str:
    """Return 16 hex digits of the sha256 of a cleaned text in lower case: the name of a row everywhere."""
    return hashlib.sha256(cleaned.lower().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def hash_order(row: str, purpose: str) -> str:
    """Return the key by which rows are drawn for `purpose`: fixed by content, and independent between purposes."""
    return hashlib.sha256(f"{purpose}:{row}".encode()).hexdigest()


def sentences(cleaned: str) -> list[str]:
    """Return the sentences of a cleaned text, in order, with their stops; titles and initials end none."""
    parts, start = [], 0
    for end in _END.finditer(cleaned):
        before = cleaned[start : end.start()].rsplit(None, 1)[-1:]
        if before and (before[0] in _TITLES or (len(before[0]) == 1 and before[0].isupper() and before[0] != "I")):
            continue
        parts.append(cleaned[start : end.end()].strip())
        start = end.end()
    return [sentence for sentence in [*parts, cleaned[start:].strip()] if sentence]
