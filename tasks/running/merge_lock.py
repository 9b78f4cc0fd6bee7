"""What Git calls to merge dvc.lock and sources.lock: stage by stage, never with marks of a conflict in the file.

A stage that one side changed is taken from that side. Of one that both changed, ours stays without its inputs and params: its
files can still be checked out, and DVC runs it again, or takes it from its run cache. `dvc status` judges what comes of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import UserError
from tasks.files import parse_object

SCHEMA: Final = "2.0"  # of dvc.lock
Entry = Any


@dataclass(frozen=True)
class Merged:
    """What came of a merge: the text, and what both sides had changed."""

    text: str
    both: list[str]


def merge(base: str, ours: str, theirs: str, name: str) -> Merged:
    """Return the merge of three texts of a file of this name; UserError where one of them cannot be read."""
    if Path(name).name == "sources.lock":
        sides = [_object(text, f"{name} ({side})") for text, side in ((base, "base"), (ours, "ours"), (theirs, "theirs"))]
        entries, both = _merged(*sides)  # of what both changed ours stays: a run looks at the source itself
        return Merged(json.dumps(entries, sort_keys=True, indent=1, ensure_ascii=False) + "\n", both)
    locks = [_lock(text, f"{name} ({side})") for text, side in ((base, "base"), (ours, "ours"), (theirs, "theirs"))]
    stages, both = _merged(*(lock.get("stages") or {} for lock in locks))
    for stage in both:
        stages[stage] = {key: value for key, value in stages[stage].items() if key in ("cmd", "outs")}
    stream = io.StringIO()
    whole = {**locks[2], **locks[1], "schema": SCHEMA, "stages": stages}
    _yaml().dump(whole, stream)
    return Merged(stream.getvalue(), both)


def _merged(
    base: Mapping[str, Entry], ours: Mapping[str, Entry], theirs: Mapping[str, Entry]
) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of both sides, and the names of those that both changed, each otherwise."""
    merged: dict[str, Entry] = {}
    both = []
    for name in dict.fromkeys((*ours, *theirs)):
        before, mine, other = (side.get(name) for side in (base, ours, theirs))
        taken = other if mine == before else mine
        if mine != other and before not in (mine, other):
            both.append(name)
            taken = other if mine is None else mine
        if taken is not None:
            merged[name] = taken
    return merged, both


def _lock(text: str, name: str) -> dict[str, Any]:
    """Return the content of a dvc.lock as it is written, so that it is written so again; of an empty one nothing."""
    try:
        content = _yaml().load(text) or {}
    except YAMLError as error:
        raise UserError(f"{name}: not readable as YAML: {' '.join(str(error).split())}; take one side whole, {_ADVICE}") from None
    stages = content.get("stages") or {} if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) and "cmd" in entry for entry in stages.values()):
        raise UserError(f"{name}: no dvc.lock, it has no stages with their commands; take one side whole, {_ADVICE}")
    return dict(content)


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        return parse_object(text) if text.strip() else {}
    except ValueError as error:
        raise UserError(f"{name}: cannot be read: {error}; take one side whole, {_ADVICE}") from None


def _yaml() -> YAML:
    """Return the library set as DVC sets it."""
    yaml = YAML()
    yaml.default_flow_style = False
    return yaml


_ADVICE: Final = "`git checkout --ours FILE` or --theirs; the run writes what differs anew"
