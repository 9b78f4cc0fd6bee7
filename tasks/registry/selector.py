"""How people name a registered version, the same in every command: MODEL@ALIAS or MODEL/VERSION, or a part of it.

After `models:/`, as MLflow writes it, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tasks.errors import UserError
from tasks.registry.reading import Reader, own_tags

CHALLENGER: Final = "challenger"
CHAMPION: Final = "champion"
MLFLOW: Final = "models:/"
MEANT: Final = re.compile(r"(?:(?P<model>.+?)[:@/ ])?v?(?P<version>\d+)", re.IGNORECASE)  # v1, tiny:1, tiny@v1, tiny/v1


@dataclass(frozen=True)
class Selector:
    """A model, and at most one of an alias and a version number; neither where nobody said it."""

    model: str
    alias: str | None = None
    version: str | None = None


def parse_selector(text: str | None, own_model: str, aliases: Collection[str] = ()) -> Selector:
    """Return what a text names: MODEL, MODEL@ALIAS, MODEL/VERSION, @ALIAS, /VERSION, VERSION, or ALIAS where it is known.

    `own_model`: the model of params.yaml, meant where none is named; `aliases`: those it has. None names it alone.
    """
    name, at, alias = (text or own_model).removeprefix(MLFLOW).partition("@")
    name, slash, version = name.partition("/")
    if not at and not slash and name != own_model:
        if name.isdecimal():
            return Selector(own_model, version=name)
        if name in aliases:
            return Selector(own_model, alias=name)
    if (at and (slash or not alias or "/" in alias)) or (slash and not version.isdecimal()):
        hint = _nearest(str(text), own_model)
        raise UserError(f"{text!r}: write MODEL, MODEL@ALIAS or MODEL/VERSION, such as {hint or f'{own_model}@{CHAMPION}'}")
    return Selector(name or own_model, alias or None, version or None)


def find_version(tracker: Reader, text: str | None, own_model: str, alias: str = CHAMPION) -> tuple[str, str]:
    """Return (model, version number) of what a text names, of `alias` where it says neither alias nor version.

    Raises UserError with what is registered when there is no such version.
    """
    selected = parse_selector(text, own_model, tracker.aliases(own_model))
    number = selected.version or tracker.aliases(selected.model).get(selected.alias or alias)
    if number in _numbers(tracker, selected.model):
        return selected.model, str(number)
    name = selected.model if _numbers(tracker, selected.model) else own_model
    known = [f"{name}@{known_alias}" for known_alias in sorted(tracker.aliases(name))]
    known += [f"{name}/{version}" for version in _numbers(tracker, name)]
    words = ", ".join(known) or "none, `compactlm run` makes some"
    nearest = _of_round(tracker, own_model, text) or _nearest(text or "", own_model)
    hint = f" Did you mean {nearest}?" if nearest in known else ""
    raise UserError(f"{text or f'{own_model}@{alias}'}: there is no such version; registered: {words}.{hint}")


def _nearest(text: str, own_model: str) -> str | None:
    """Return MODEL/VERSION where a text names a number in another form; None where it does not."""
    meant = MEANT.fullmatch(text.removeprefix(MLFLOW))
    return f"{meant['model'] or own_model}/{int(meant['version'])}" if meant else None


def _of_round(tracker: Reader, model: str, text: str | None) -> str | None:
    """Return the newest version of the round that a text names; None where it names none."""
    numbers = [entry.version for entry in tracker.versions(model) if own_tags(entry.tags).get("round") == text]
    return f"{model}/{numbers[-1]}" if numbers else None


def _numbers(tracker: Reader, model: str) -> list[str]:
    return [entry.version for entry in tracker.all_versions(model)]


def find_own_version(tracker: Reader, text: str | None, own_model: str, alias: str) -> str:
    """Return the version number of what a text names; UserError when it is a version of another model than params.yaml's."""
    model, number = find_version(tracker, text, own_model, alias)
    if model != own_model:
        raise UserError(f"{text!r}: decisions are made about {own_model} (registry.model_name in params.yaml), not {model}")
    return number
