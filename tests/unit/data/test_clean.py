"""Cleaning, naming and cutting texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.clean import clean_text, markup_in, row_id, sentences


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Good.<br /><br />Bad.", "Good. Bad."),
        ("  a\t<i>b</i>\n c ", "a b c"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("cafe\u0301", "caf\u00e9"),
        ("<br />", ""),
        ("<a<b>c>", ""),
        ("<b<i>r</br>", "<b r"),
        ("@<user> sent <url>: List<String> is no <a href='x'>link</A>", "@<user> sent <url>: List<String> is no link"),
        ("<!-- a note -->fine<!DOCTYPE html><p>", "fine"),
        ("<bread> <p@x.org> </user> <!> a<br/>b <https://x.org/a?b=c>", "<bread> <p@x.org> </user> <!> a b"),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


def test_markup_is_counted_by_kind_and_other_brackets_are_not() -> None:
    assert markup_in(["a<br />b<BR>c", "<user> <i>x</i>", "<https://x.org>", "1 < 2", "<!-- x -->"]) == {
        "br": 2,
        "i": 2,
        "http": 1,
        "!": 1,
    }


def test_row_id_ignores_case_tags_and_spaces() -> None:
    assert row_id(clean_text("A  <b>Film</b>")) == row_id("a film")
    assert row_id("a film") != row_id("a films")
    assert len(row_id("a film")) == 16


def test_sentences_keep_titles_and_initials_together() -> None:
    text = 'Mr. Smith met James M. Cain. "Really?" he said! So did I. Then 3 more...'
    assert sentences(text) == ["Mr. Smith met James M. Cain.", '"Really?" he said!', "So did I.", "Then 3 more..."]


@given(st.text())
def test_sentences_lose_nothing(text: str) -> None:
    cleaned = clean_text(text)
    assert " ".join(sentences(cleaned)) == cleaned
