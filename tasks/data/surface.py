"""How the outside of a text can differ while what it says stays: handles, links, emoticons, end marks, numbers, names, slips.

The same changes make measured copies of rows (`tasks.data.stress`) and dress transfer rows (`tasks.data.transfer`). Every choice
is drawn from the name of the row: a row is changed alike whatever other rows there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from tasks.data.typos import with_typos

Item = TypeVar("Item")
EMOTICONS: Final = (
    ":)",
    ":-)",
    ":D",
    ";)",
    ":P",
    "=)",
    ":(",
    ":-(",
    ":/",
    ":'(",
    "xD",
    "<3",
    ":O",
    ":|",
    "^_^",
    "-_-",
    "=D",
    ":]",
    "(:",
)
EMOJI: Final = (
    "\N{FACE WITH TEARS OF JOY}",
    "\N{SMILING FACE WITH HEART-SHAPED EYES}",
    "\N{LOUDLY CRYING FACE}",
    "\N{THUMBS UP SIGN}",
    "\N{UNAMUSED FACE}",
    "\N{FIRE}",
    "\N{HEAVY BLACK HEART}",
    "\N{THINKING FACE}",
    "\N{PERSON WITH FOLDED HANDS}",
    "\N{SMILING FACE WITH SMILING EYES}",
)
LAUGHS: Final = ("lol", "haha", "omg", "hahaha", "lmao", "ugh", "wow", "hmm")
ENDS: Final = ("!", "!!", "!!!", "...", "?!", "?", ";", "")
HOSTS: Final = ("http://t.co/", "https://t.co/", "http://bit.ly/", "http://tinyurl.com/", "http://www.", "https://www.")
FIRST_NAMES: Final = ("Anna", "Ben", "Carlos", "Diana", "Emeka", "Fatima", "George", "Hana", "Ivan", "Julia", "Omar", "Priya")
LAST_NAMES: Final = ("Adams", "Brown", "Chen", "Diaz", "Evans", "Fischer", "Garcia", "Ito", "Khan", "Novak", "Okafor", "Rossi")
MONTHS: Final = ("January", "March", "April", "June", "July", "August", "October", "December")
SYMBOLS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
DRAWN_OUT: Final = re.compile(r"(?<=[^\W\d_])([aeiou])(?=[^\W\d_]*\b)", re.IGNORECASE)
LAST_MARK: Final = re.compile(r"\s*[.!?;:\u2026]*\s*$")
PLAIN_WORD: Final = re.compile(r"\b[a-z]{3,10}\b")
VERB: Final = re.compile(
    r"\b(is|are|was|were|will|can|could|would|should|has|have|had|does|do|did)\b(?! not\b|n't)", re.IGNORECASE
)


class Form(NamedTuple):
    """Something that stands on the outside of texts: what it is called, and how it is found."""

    words: str
    pattern: re.Pattern[str]


FORMS: Final[Mapping[str, Form]] = {
    "handle": Form("an @", re.compile(r"@")),
    "hashtag": Form("a #", re.compile(r"#")),
    "link": Form("a link", re.compile(r"https?://|\bwww\.", re.IGNORECASE)),
    "emoticon": Form(
        "an emoticon", re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, EMOTICONS))})(?!\S)|[\u2764\U0001f300-\U0001faff]")
    ),
    "digit": Form("a digit", re.compile(r"\d")),
    "exclamation": Form("a !", re.compile(r"!")),
    "entity": Form("an entity of HTML", re.compile(r"&(?:#\d+|[a-z]+);", re.IGNORECASE)),
    "capitals": Form("a word in capitals", re.compile(r"\b[A-Z]{3,}\b")),
}


@dataclass
class Draw:
    """Choices that follow from a seed, one after the other; `words` are those that handles, hashtags and links are made of."""

    seed: str
    words: Sequence[str]
    drawn: int = field(default=0)

    def number(self, below: int) -> int:
        """Return a whole number from 0 to `below` - 1."""
        self.drawn += 1
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{self.drawn}".encode()).digest()[:8]) % below

    def chance(self, share: float) -> bool:
        """Return whether something that happens in this share of cases happens here."""
        return self.number(2**32) < share * 2**32

    def one(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self.number(len(items))]

    def word(self) -> str:
        """Return a word of the data, or a made one where it has none."""
        return self.one(self.words) if self.words else self.symbols(6)

    def symbols(self, count: int) -> str:
        """Return letters and digits without meaning."""
        return "".join(self.one(SYMBOLS) for _ in range(count))


Change = Callable[[str, Draw], str]


def handles(text: str, draw: Draw) -> str:
    """Return the text after one or two handles, at times with a colon."""
    names = " ".join(_handle(draw) for _ in range(1 + draw.chance(0.25)))
    return f"{names}{':' if draw.chance(0.2) else ''} {text}"


def retweet(text: str, draw: Draw) -> str:
    """Return the text as a post that is passed on."""
    return f"RT {_handle(draw)}: {text}"


def links(text: str, draw: Draw) -> str:
    """Return the text before a link."""
    host = draw.one(HOSTS)
    end = f"{draw.word()}.com/{draw.word()}" if host.endswith("www.") else draw.symbols(7)
    return f"{text} {host}{end}"


def hashtags(text: str, draw: Draw) -> str:
    """Return the text with one of its longer words as a hashtag, or with a hashtag behind it."""
    longer = list(re.finditer(r"(?<![\w@#/.])[^\W\d_]{4,}(?!['\w])", text))
    if longer and draw.chance(0.6):
        place = draw.one(longer)
        return f"{text[: place.start()]}#{text[place.start() :]}"
    return f"{text} #{draw.word()}" + (f" #{draw.word()}{draw.word()}" if draw.chance(0.3) else "")


def emoticons(text: str, draw: Draw) -> str:
    """Return the text before an emoticon or an emoji."""
    return f"{text} {draw.one(EMOTICONS + EMOJI)}"


def end_marks(text: str, draw: Draw) -> str:
    """Return the text with another mark at its end, or none."""
    start = LAST_MARK.sub("", text)
    old = text[len(start) :].strip()
    return start + draw.one([mark for mark in ENDS if mark != old])


def laughs(text: str, draw: Draw) -> str:
    """Return the text with an outburst before or behind it."""
    return f"{draw.one(LAUGHS)} {text}" if draw.chance(0.4) else f"{text} {draw.one(LAUGHS)}"


def stretched(text: str, draw: Draw) -> str:
    """Return the text with a vowel drawn out, as in `sooo`."""
    vowels = list(DRAWN_OUT.finditer(text))
    if not vowels:
        return text
    place = draw.one(vowels)
    return text[: place.end()] + place[1] * (2 + draw.number(3)) + text[place.end() :]


def entities(text: str, draw: Draw) -> str:
    """Return the text as a page's source has it: marks as entities of HTML, or a line break that was left in."""
    escaped = re.sub(r"\band\b", "&amp;", text, count=1).replace("'", "&#39;").replace('"', "&quot;")
    if escaped != text and draw.chance(0.6):
        return escaped
    middle = [match.start() for match in re.finditer(" ", text)]
    at = draw.one(middle) if middle else len(text)
    return f"{text[:at]} {draw.one(('<br />', '&nbsp;', '&amp;', '&lt;3', '&gt;'))}{text[at:]}"


def slips(text: str, draw: Draw) -> str:
    """Return the text with slips of the keyboard in a part of its words: `tasks.data.typos`."""
    return with_typos(text, 0.3, draw.seed)


def numbers(text: str, draw: Draw) -> str:
    """Return the text with a number, a price, a mark or a year."""
    small, large, year = 1 + draw.number(10), draw.number(1000), 1950 + draw.number(76)
    made = draw.one((f"({small}/10)", f"${large}.99", f"{year}:", f"#{small}", f"{large}", f"{large}%", f"{small}:30pm"))
    return f"{made} {text}" if draw.chance(0.5) else f"{text} {made}"


def quotes(text: str, draw: Draw) -> str:
    """Return the text, or one of its words, between marks."""
    left, right = draw.one((('"', '"'), ("(", ")"), ("\u201c", "\u201d"), ("*", "*"), ("'", "'")))
    if draw.chance(0.5):
        return f"{left}{text}{right}"
    words = text.split(" ")
    at = draw.number(len(words))
    return " ".join([*words[:at], f"{left}{words[at]}{right}", *words[at + 1 :]])


def lists(text: str, draw: Draw) -> str:
    """Return the text as an entry of a list, or after a heading in capitals."""
    first, second = draw.word(), draw.word()
    start = draw.one(("- ", "* ", f"{1 + draw.number(9)}. ", f"{first.upper()}: ", f"{first.capitalize()} {second}: "))
    return start + text


def emails(text: str, draw: Draw) -> str:
    """Return the text with an address of e-mail."""
    address = f"{draw.word()}.{draw.word()}@{draw.word()}.{draw.one(('com', 'org', 'net'))}"
    return f"{text} ({address})" if draw.chance(0.5) else f"{address} wrote: {text}"


def titles(text: str, draw: Draw) -> str:
    """Return the text after a title in brackets."""
    return f"[{draw.word().capitalize()} {draw.word().capitalize()}] {text}"


def names(text: str, draw: Draw) -> str:
    """Return the text after who said it and when, as a newspaper has it."""
    who = f"{draw.one(FIRST_NAMES)} {draw.one(LAST_NAMES)}"
    day = f"{1 + draw.number(28)} {draw.one(MONTHS)} {1990 + draw.number(36)}"
    return draw.one((f"{who}, {day}: {text}", f"{day}, {who}: {text}", f"{who} said on {day}: {text}"))


def negation(text: str, draw: Draw) -> str:
    """Return the text denied: teacher and student have to move, and by as much as each other."""
    verb = VERB.search(text)
    if verb is None:
        return f"{draw.one(('it is not true that', 'i do not think that', 'nobody would say that'))} {text}"
    return f"{text[: verb.end()]} not{text[verb.end() :]}"


def capitals(text: str, draw: Draw) -> str:
    """Return the text all in small letters, all in capitals, or each word with a capital; nothing to an uncased tokenizer."""
    return draw.one((str.lower, str.upper, str.title))(text)


# In the order in which they are laid on: what is inside a text, its end, its beginning. The share of dressed texts that get each,
# if it is among the kinds asked for; common on the web is common here.
CHANGES: Final[Mapping[str, tuple[Change, float]]] = {
    "capitals": (capitals, 0.1),
    "negation": (negation, 0.05),
    "typos": (slips, 0.1),
    "stretched": (stretched, 0.06),
    "entities": (entities, 0.1),
    "hashtags": (hashtags, 0.2),
    "numbers": (numbers, 0.08),
    "end_marks": (end_marks, 0.4),
    "quotes": (quotes, 0.08),
    "laughs": (laughs, 0.08),
    "links": (links, 0.1),
    "emoticons": (emoticons, 0.25),
    "emails": (emails, 0.05),
    "titles": (titles, 0.05),
    "names": (names, 0.05),
    "lists": (lists, 0.05),
    "handles": (handles, 0.5),
    "retweet": (retweet, 0.1),
}


def changed(text: str, kind: str, row: str, words: Sequence[str]) -> str:
    """Return the text with one kind of change (a name of `CHANGES`), drawn from the row's name; it may find nothing to change."""
    return CHANGES[kind][0](text, Draw(f"change:{kind}:{row}", words))


def dressed(text: str, kinds: Collection[str], row: str, words: Sequence[str]) -> str:
    """Return the text with some of these kinds of change, one at least, drawn from the row's name."""
    draw = Draw(f"surface:{row}", words)
    chosen = [kind for kind, (_, share) in CHANGES.items() if draw.chance(share) and kind in kinds]
    for kind in chosen or [draw.one(sorted(kinds))]:
        text = CHANGES[kind][0](text, Draw(f"surface:{kind}:{row}", words))
    return text


def plain_words(texts: Iterable[str]) -> list[str]:
    """Return the words of three to ten small letters in these texts, each once, sorted."""
    return sorted({word for text in texts for word in PLAIN_WORD.findall(text)})


def form_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of texts that show each of `FORMS`; 0 of no text."""
    return {name: sum(bool(form.pattern.search(text)) for text in texts) / max(1, len(texts)) for name, form in FORMS.items()}


def _handle(draw: Draw) -> str:
    first, second = draw.word(), draw.word()
    return "@" + draw.one((first, f"{first}{draw.number(100)}", f"{first}_{second}", f"{first}{second}"))
