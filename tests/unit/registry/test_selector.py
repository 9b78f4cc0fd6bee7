"""How people name a version: the same words mean the same in every command."""

from __future__ import annotations

import pytest

from tasks.errors import UserError
from tasks.registry.selector import Selector, parse_selector


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, Selector("toy")),
        ("toy", Selector("toy")),
        ("toy@champion", Selector("toy", alias="champion")),
        ("toy/3", Selector("toy", version="3")),
        ("@champion", Selector("toy", alias="champion")),
        ("/3", Selector("toy", version="3")),
        ("3", Selector("toy", version="3")),
        ("champion", Selector("toy", alias="champion")),
        ("other", Selector("other")),  # no alias of toy
        ("other/3", Selector("other", version="3")),
        ("other@champion", Selector("other", alias="champion")),
    ],
)
def test_what_is_meant(text: str | None, meant: Selector) -> None:
    assert parse_selector(text, "toy", {"champion", "previous"}) == meant


@pytest.mark.parametrize("text", ["toy@", "@", "toy/", "/", "toy/x", "toy/3@champion", "toy@champion/3", "toy/-1"])
def test_what_cannot_be_meant_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(UserError, match="write MODEL, MODEL@ALIAS or MODEL/VERSION, such as toy@champion"):
        parse_selector(text, "toy", {"champion"})
