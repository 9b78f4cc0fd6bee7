"""By which decision the aliases of a registered model stand, as its tags say; and whether this clone knows that decision.

Several clones may share one registry, and each knows its own log alone. A clone that knows fewer decisions, or another one
under the same number, must not touch an alias: it would take back what somebody else decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import UserError
from tasks.git import remotes
from tasks.promotion.decisions import LOG, REFS, Decision, told
from tasks.registry.reading import Reader
from tasks.registry.tracking import Tracker

SETTLED: Final = "decision"  # tag: the aliases were brought up to this decision
BEGUN: Final = "decision_begun"  # tag, written first: somebody is about to move them by this one, and may have died over it
LONGEST_NAME: Final = 100  # characters
LABEL_CHARACTERS: Final = 12  # of a digest


@dataclass(frozen=True)
class Mark:
    """What a tag says of a decision: `sha256` and `words` (when, by whom) are empty in those of former versions."""

    number: int
    sha256: str
    words: str

    @property
    def label(self) -> str:
        """Return how people name the decision: by the beginning of its digest, else by its number."""
        return self.sha256[:LABEL_CHARACTERS] or str(self.number)

    @property
    def sentence(self) -> str:
        """Return which decision it is, and whose."""
        return f"decision {self.number}" + (f" of {self.words} ({self.label})" if self.sha256 else "")


@dataclass(frozen=True)
class Stale:
    """Why a clone must leave the aliases alone; `forked` when it has another decision under the same number."""

    sentence: str
    forked: bool


class StaleError(UserError):
    """This clone does not know the decision by which the aliases stand."""


def read_mark(text: str | None) -> Mark | None:
    """Return what the value of a tag says; None where there is none, or no number in it."""
    number, _, rest = (text or "").partition(" ")
    sha256, _, words = rest.partition(" ")
    return Mark(int(number), sha256, words) if number.isdecimal() else None


def mark_of(entry: Decision) -> str:
    """Return the value of a tag for a decision."""
    return f"{entry['number']} {entry['sha256']} {entry['at']} by {entry['actor'][:LONGEST_NAME]}"


def put_mark(tracker: Tracker, name: str, tag: str, entry: Decision) -> None:
    """Let a tag say a decision, unless it does already."""
    if tracker.model_tag(name, tag) != mark_of(entry):
        tracker.set_model_tag(name, tag, mark_of(entry))


def is_settled(tracker: Reader, name: str, entry: Decision) -> bool:
    """Return whether the aliases were brought up to a decision; they may have been moved by hand since."""
    mark = read_mark(tracker.model_tag(name, SETTLED))
    return mark is not None and mark.number == entry["number"] and mark.sha256 in ("", entry["sha256"])


def stale(tracker: Reader, name: str, log: Sequence[Decision], drop: str = "") -> Stale | None:
    """Return why this clone must not touch the aliases of a model: it does not know by which decision they stand.

    `drop` names a decision that does not count any more, as `Mark.label` does.
    """
    marks = [mark for tag in (SETTLED, BEGUN) if (mark := read_mark(tracker.model_tag(name, tag))) is not None]
    marks = [mark for mark in marks if drop[:LABEL_CHARACTERS] != mark.label]
    newest = max(marks, key=lambda mark: mark.number, default=None)
    if newest is not None and newest.number > len(log):
        words = f"{name}: this clone knows {_count(len(log))}, and the aliases in the registry stand by {newest.sentence}"
        return Stale(f"{words}; {_how_to_fetch(tracker.workspace, newest)}", forked=False)
    known = {entry["number"]: entry for entry in log}
    for mark in marks:
        if mark.sha256 and known[mark.number]["sha256"] != mark.sha256:
            words = f"{name}: decision {mark.number} was made twice: here {told(known[mark.number])}, "
            words += f"and the aliases in the registry stand by {mark.sentence}, which another clone made"
            return Stale(f"{words}; {_how_to_join(tracker.workspace, mark)}", forked=True)
    return None


def refuse_stale(tracker: Reader, name: str, log: Sequence[Decision], drop: str = "") -> None:
    """Raise StaleError where this clone must not touch the aliases of a model; `drop` as in `stale`."""
    if found := stale(tracker, name, log, drop):
        raise StaleError(found.sentence)


def _how_to_fetch(workspace: Path, mark: Mark) -> str:
    remote = likely_remote(workspace)
    return (
        f"nothing is changed from here before that is fetched: git fetch {remote} '{REFS}/*:{REFS}/*'. If nobody has it any "
        f"more, compactlm history --repair --drop {mark.label} puts the aliases back to the log here"
    )


def _how_to_join(workspace: Path, mark: Mark) -> str:
    return (
        f"nothing is changed from here while they differ. {how_to_take(likely_remote(workspace))}; "
        f"to keep the log here, compactlm history --repair --drop {mark.label}"
    )


def how_to_take(remote: str) -> str:
    """Return how the decisions of a remote take the place of one's own."""
    return (
        f"To keep the log of {remote}, git fetch --prune {remote} '{REFS}/*:{REFS}/*' && rm {LOG} && "
        "compactlm history --repair, and decide anew"
    )


def likely_remote(workspace: Path) -> str:
    """Return the name of the remote that people mean: the only one, or origin; REMOTE where nobody can know."""
    known = remotes(workspace)
    return known[0] if len(known) == 1 else "origin" if "origin" in known else "REMOTE"


def _count(number: int) -> str:
    return f"{number or 'no'} decision{'' if number == 1 else 's'}"
