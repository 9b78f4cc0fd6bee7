"""Changes of the outside of texts: drawn from the row's name alone, each its own kind, and found again by what is counted."""

from __future__ import annotations

import pytest

from tasks.data.surface import CHANGES, FORMS, Draw, changed, dressed, form_shares, plain_words

TEXT = 'It\'s a great film, and the actors were "good".'
WORDS = ["battery", "garden", "minute", "sailor"]
SHOWN = {"handles": "handle", "retweet": "handle", "links": "link", "emoticons": "emoticon", "emails": "handle"}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_follows_from_the_row_and_differs_between_rows(kind: str) -> None:
    copies = [changed(TEXT, kind, f"row{number}", WORDS) for number in range(40)]
    assert copies == [changed(TEXT, kind, f"row{number}", WORDS) for number in range(40)]
    assert all(copy != TEXT for copy in copies) or kind == "typos"  # a slip has a chance in each word
    assert len(set(copies)) > (0 if kind == "negation" else 2)


@pytest.mark.parametrize("text", ["", "!", "a", "\N{FACE WITH TEARS OF JOY}", "x " * 300, "no vowels: sh hmm"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_any_text_is_a_text(kind: str, text: str) -> None:
    assert isinstance(changed(text, kind, "row", []), str)


def test_what_a_change_lays_on_is_what_is_counted() -> None:
    assert set(form_shares([TEXT]).values()) == {0.0}
    for kind, form in SHOWN.items():
        assert form_shares([changed(TEXT, kind, f"{row}", WORDS) for row in range(20)])[form] == 1.0
    assert form_shares(["http://a.b", "fine", ":) 5", "&amp; #ok WOW"]) == {
        **dict.fromkeys(FORMS, 0.25),
        "handle": 0.0,
        "exclamation": 0.0,
    }
    assert set(form_shares([]).values()) == {0.0}


def test_a_denied_text_denies_its_verb_or_the_whole() -> None:
    assert changed("the plot is thin.", "negation", "r", []) == "the plot is not thin."
    assert changed("dull.", "negation", "r", []).endswith(" dull.")


def test_dressing_takes_the_kinds_that_are_asked_for_and_one_at_least() -> None:
    kinds = ["links", "retweet"]
    made = [dressed(TEXT, kinds, f"{row}", WORDS) for row in range(200)]
    assert all(text.startswith("RT @") or "http" in text for text in made)
    assert any(text.startswith("RT @") and "http" in text for text in made)
    every = [dressed(TEXT, [*CHANGES], f"{row}", WORDS) for row in range(400)]
    assert 0.4 < sum(" @" in f" {text}" for text in every) / len(every) < 0.75  # handles are common, as on the web


def test_kinds_that_are_held_back_change_nothing_of_what_the_others_do() -> None:
    learnt = [kind for kind in CHANGES if kind not in ("emails", "names")]
    both = [(dressed(TEXT, learnt, f"{row}", WORDS), dressed(TEXT, [*learnt, "emails"], f"{row}", WORDS)) for row in range(60)]
    assert sum(first == second for first, second in both) > 45


def test_draws_are_even_and_words_are_plain() -> None:
    draw = Draw("seed", [])
    counts = [draw.number(4) for _ in range(4000)]
    assert all(900 < counts.count(number) < 1100 for number in range(4))
    assert draw.word().isalnum()
    assert plain_words(["The battery, it's LOUD", "battery of unreasonably"]) == ["battery"]
