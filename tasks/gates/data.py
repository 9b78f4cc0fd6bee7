"""Whether the rows behind a verdict are those of data that was found valid, and none of them was learnt from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from tasks.gates.rules import Answer

LEAKS: Final = ("one_set_a_text", "near_duplicates_held_out")  # expectations of validation/summary.json
GROUP_NAME: Final = "group "
GROUPS_APART: Final = "one_side_a_group"  # another one, of pairs


def data_validated(validation: Mapping[str, Any], prepared: Mapping[str, Any], quality: Mapping[str, Any]) -> Answer:
    """Return whether the data passed validation, and these are the rows that were measured.

    The three files agree by digests: the data file's in validation/summary.json and data/summary.json, and the row ids'
    of each set in data/summary.json and quality.json (`quality`: its sets).
    """
    asked = validation.get("expectations") or []
    failed = sorted(str(each.get("name")) for each in asked if each.get("success") is not True)
    if failed or validation.get("success") is not True or validation.get("problems"):
        return Answer("fail", f"the data did not pass: {', '.join(failed) or 'see validation/summary.json'}")
    if not asked:
        return Answer("hold", "cannot be decided: no expectation was asked of the data")
    if not validation.get("sha256") or validation["sha256"] != prepared.get("sha256"):
        return Answer("hold", "cannot be decided: another file was validated than the sets were made of; run again")
    sets = prepared.get("sets", {})
    for name, entry in sorted(quality.items()):
        if not entry.get("rows_sha256") or sets.get(name, {}).get("rows_sha256") != entry["rows_sha256"]:
            return Answer("hold", f"cannot be decided: other rows of {name!r} were measured than were prepared; run again")
    return Answer("pass", f"{len(asked)} expectations are met by {validation.get('file')}, the file behind the measured rows")


def group_name(group: str) -> str:
    """Return how a group of pairs is called among the ids of rows."""
    return f"{GROUP_NAME}{group}"


def no_overlap(
    validation: Mapping[str, Any],
    learnt: Mapping[str, Collection[str] | None],
    measured: Mapping[str, Collection[str] | None],
    of_pairs: bool = False,
) -> Answer:
    """Return whether no measured row is among those learnt from; row ids by set, None for a set that cannot be read.

    Of pairs the names of groups (`group_name`) stand among the ids: a first text that is learnt from cannot be measured. Ids are
    compared here; that no row nearly equal to a held-out one is learnt from is what validation has found.
    """
    missing = [name for name, rows in measured.items() if not rows]
    missing += [name for name, rows in learnt.items() if rows is None]
    missing += [] if learnt.get("train") or "train" in missing else ["train"]
    for name, rows in measured.items():
        for other, known in learnt.items():
            shared = sorted(set(rows or ()) & set(known or ()))
            if shared:
                words = f"{len(shared)} rows{' and groups' if of_pairs else ''} of {name} are in {other}, e.g. {shared[0]}"
                return Answer("fail", f"{words}: what a model has learnt cannot test it")
    if missing or not measured:
        return Answer("hold", f"cannot be decided: there are no rows of {', '.join(missing) or 'any set'}")
    met = {each.get("name"): each.get("success") for each in validation.get("expectations") or []}
    leaks = (*LEAKS, GROUPS_APART) if of_pairs else LEAKS
    broken = [name for name in leaks if name in met and met[name] is not True]
    if broken:
        return Answer("fail", f"validation found a leak: {', '.join(broken)}")
    unasked = [name for name in leaks if name not in met]
    if unasked:
        return Answer("hold", f"cannot be decided: validation did not look for {', '.join(unasked)}")
    count = sum(not row.startswith(GROUP_NAME) for rows in measured.values() for row in rows or ())
    return Answer("pass", f"none of {count:,} measured rows is in {', '.join(learnt)}, nor nearly equal to one that is")
