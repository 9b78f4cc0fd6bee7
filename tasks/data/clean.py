"""Text as the pipeline sees it: cleaned once, named by its content, cut into sentences."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final

# The tags that mark up running text, in HTML and, as reviewers type them, around or in place of what they feel; `<sp?` (a
# doubted spelling) is cut too, as ever, for the sets of the shipped params.yaml hang on it.
_MARKUP: Final = (
    "a abbr b big blockquote body br center cite code dd del div dl dt em font h1 h2 h3 h4 h5 h6 head hr html i img ins li ol p "
    "pre q s small span strike strong sub sup table tbody td tfoot th thead tr tt u ul grin sigh spoiler"
)
_TAG: Final = re.compile(
    rf"<(?:/?({_MARKUP.replace(' ', '|')})(?=[\s/>])|(https?)://|(sp\?)|(!)(?:--|doctype))[^<>]*>", re.IGNORECASE
)
# A sentence ends at its stop (and closing quotes) before white space and something that can begin the next one.
_END: Final = re.compile(r"[.!?…]+[\"'”\u2019)\]]*\s+(?=[\"'“\u2018(\[]?[A-Z0-9])")
_TITLES: Final = frozenset({"Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Sgt", "Lt", "vs"})


def clean_text(text: str) -> str:
    """Return `text` in NFC with markup and runs of white space as single spaces; cleaning twice changes nothing.

    Markup is what `markup_in` counts; other words in angle brackets (`<user>`, `List<String>`) are text and stay.
    """
    text = unicodedata.normalize("NFC", text)
    while (stripped := _TAG.sub(" ", text)) != text:  # taking out a tag may join the halves of another one
        text = stripped
    return " ".join(text.split())


def markup_in(texts: Iterable[str]) -> Counter[str]:
    """Return how often each kind of markup stands in texts: tags of HTML by name, comments as `!`, addresses as `http`."""
    marks: Counter[str] = Counter()
    for text in texts:
        if "<" in text:
            marks.update("".join(groups).lower().replace("https", "http") for groups in _TAG.findall(text))
    return marks


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
