"""How people name a version: the same words mean the same in every command."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import UserError
from tasks.registry.selector import Selector, find_version, parse_selector
from tasks.registry.store import RegisteredVersion


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
        ("models:/toy/3", Selector("toy", version="3")),
        ("models:/other@champion", Selector("other", alias="champion")),
    ],
)
def test_what_is_meant(text: str | None, meant: Selector) -> None:
    assert parse_selector(text, "toy", {"champion", "previous"}) == meant


@pytest.mark.parametrize("text", ["toy@", "@", "toy/", "/", "toy/x", "toy/3@champion", "toy@champion/3", "toy/-1"])
def test_what_cannot_be_meant_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(UserError, match="write MODEL, MODEL@ALIAS or MODEL/VERSION, such as toy@champion"):
        parse_selector(text, "toy", {"champion"})


def store(*rounds: str) -> Any:
    """Return a reader of a model `toy` that has a version a round, the last of them the champion."""
    versions = [
        RegisteredVersion("toy", str(number), "", "", {"compactlm.round": name}) for number, name in enumerate(rounds, start=1)
    ]
    of = {"toy": versions}
    return SimpleNamespace(
        aliases=lambda name: {"champion": str(len(versions))} if name in of else {},
        versions=lambda name: of.get(name, []),
        all_versions=lambda name: of.get(name, []),
    )


def test_the_form_of_mlflow_is_taken() -> None:
    assert find_version(store("r1", "r2"), "models:/toy/1", "toy") == ("toy", "1")
    assert find_version(store("r1", "r2"), "models:/toy@champion", "toy") == ("toy", "2")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("v1", "toy/1"),
        ("toy:1", "toy/1"),
        ("toy@v2", "toy/2"),
        ("toy/v2", "toy/2"),
        ("TOY 1", None),
        ("r1", "toy/3"),
        ("v9", None),
    ],
)
def test_another_form_is_refused_with_the_nearest(text: str, nearest: str | None) -> None:
    with pytest.raises(UserError) as refused:
        find_version(store("r1", "r2", "r1"), text, "toy")
    named = str(refused.value).rpartition("such as ")[2] if "such as" in str(refused.value) else str(refused.value)
    assert nearest is None or nearest == named or f"Did you mean {nearest}?" in named
    assert nearest is not None or "Did you mean" not in named
