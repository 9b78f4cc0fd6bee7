"""Promotion as a transaction: read the champion, judge against it, commit a decision, move the aliases, read them back.

The decision in the log (tasks/promotion/decisions.py) is the truth; MLflow's aliases follow from it. A crash before the
commit leaves nothing, one after it leaves aliases that `reconcile` brings up to the log. The model tag `decision` says up to
which decision the aliases were brought: aliases that differ at that number were moved by hand.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import UserError
from tasks.lineage.receipts import git_state
from tasks.promotion.decision_page import as_markdown
from tasks.promotion.decisions import Decision, VersionRecord, commit, lease, mirror, now, read_log, sealed, version_record
from tasks.registry.reading import Reader, own_tags
from tasks.registry.tracking import Tracker

ALIASES: Final = ("previous", "champion")  # in this order: there is never a champion whose predecessor is lost
ATTEMPTS: Final = 100
SETTLED: Final = "decision"
MAX_DESCRIPTION: Final = 5000  # characters that MLflow's store keeps
State = dict[str, VersionRecord | None]  # `champion` and `previous`
Judge = Callable[[VersionRecord, VersionRecord | None], dict[str, Any]]  # (candidate, champion) -> verdict


@dataclass(frozen=True)
class Request:
    """What is asked for: `kind` is first, adopt, promote or rollback."""

    kind: str
    version: str
    reason: str
    actor: str


def actor() -> str:
    """Return who decides: COMPACTLM_ACTOR, else the user of the machine. It is what they say, not a proof."""
    return os.environ.get("COMPACTLM_ACTOR") or getpass.getuser()


def state_of(log: Sequence[Decision], name: str) -> State:
    """Return `champion` and `previous` of a model by the log; None where there is none."""
    last = next((entry for entry in reversed(log) if entry["model"] == name), None)
    return {alias: last[alias] if last else None for alias in ALIASES}


def newest(log: Sequence[Decision], name: str) -> str:
    """Return the number of a model's last decision."""
    return str(max((entry["number"] for entry in log if entry["model"] == name), default=0))


def describe(tracker: Reader, name: str, version: str) -> VersionRecord:
    """Return what identifies a version: number, digest of the weights, round, and its ids in MLflow."""
    known = tracker.versions(name)
    for entry in known:
        if entry.version == version:
            return version_record(version, own_tags(entry.tags))
    listed = ", ".join(entry.version for entry in known) or "none"
    raise UserError(f"{name}: there is no version {version}; registered: {listed} (see `compactlm models`)")


def decide(tracker: Tracker, name: str, request: Request, judge: Judge) -> Decision:
    """Return the recorded decision on a request: done, or refused with the verdict's reasons. UserError on a moved alias.

    The lease makes the processes of one machine wait for each other. Should somebody commit without it, the create-only
    ref refuses our number, and the candidate is judged again, against the champion there is then.
    """
    workspace = tracker.workspace
    for _ in range(ATTEMPTS):
        with lease(workspace):
            reconcile_locked(tracker, name)
            log = read_log(workspace)
            candidate = describe(tracker, name, request.version)
            check_request(request, candidate, log, name)
            tracker.require_update(name)
            verdict = judge(candidate, state_of(log, name)["champion"])
            decision = content(name, request, candidate, verdict, log)
            entry = sealed({**decision, "git": git_state(workspace)}, log)
            if not commit(workspace, entry):
                continue
            mirror(workspace, read_log(workspace))
            settle(tracker, name)
            return entry
    raise UserError(f"{name}: {ATTEMPTS} other decisions came first; try again when fewer promotions are under way")


def check_request(request: Request, candidate: VersionRecord, log: Sequence[Decision], name: str) -> None:
    """Raise UserError for what is no question for a gate: nothing to change, or no champion to go back from."""
    champion = state_of(log, name)["champion"]
    if champion is not None and champion["model_sha256"] == candidate["model_sha256"]:
        raise UserError(f"{name}: version {candidate['version']} is champion already; nothing to decide")
    if request.kind == "first" and any(entry["model"] == name for entry in log):
        raise UserError(f"{name}: there have been decisions already; a first champion is no longer automatic")


def content(
    name: str, request: Request, candidate: VersionRecord, verdict: Mapping[str, Any], log: Sequence[Decision]
) -> dict[str, Any]:
    """Return a decision's content; a refused one leaves champion and previous as they were."""
    before, done = state_of(log, name), verdict["verdict"] == "pass"
    after = {"champion": candidate, "previous": before["champion"]} if done else before
    return {
        "model": name,
        "kind": request.kind,
        "outcome": "done" if done else "refused",
        "candidate": candidate,
        "verdict": verdict,
        "reason": request.reason,
        "actor": request.actor,
        "at": now(),
        "before": before,
        **after,
    }


def settle(tracker: Tracker, name: str) -> None:
    """Bring the aliases to what the newest decision says, and read them back; again if a newer one came meanwhile."""
    while True:
        log = read_log(tracker.workspace)
        state = state_of(log, name)
        for alias in ALIASES:
            point(tracker, name, alias, state[alias])
        if len(read_log(tracker.workspace)) == len(log):
            break  # else a slow process of an older decision must not have the last word
    wrong = differences(tracker, name, state)
    if wrong:
        raise UserError(f"{name}: {'; '.join(wrong)}, right after it was set; is another program moving aliases?")
    describe_newest(tracker, name, log)
    mark(tracker, name, newest(log, name))


def describe_newest(tracker: Tracker, name: str, log: Sequence[Decision]) -> None:
    """Show the newest decision on the page of the version it is about."""
    entry = next(entry for entry in reversed(log) if entry["model"] == name)
    version = number_of(tracker, name, entry["candidate"])
    if version is not None:
        tracker.set_description(name, version, as_markdown(entry, MAX_DESCRIPTION))


def point(tracker: Tracker, name: str, alias: str, wanted: VersionRecord | None) -> None:
    """Point one alias at the version with the decided weights; without such a version it is taken away."""
    version = number_of(tracker, name, wanted)
    if version is not None:
        tracker.set_alias(name, alias, version)
    elif alias in tracker.aliases(name):
        tracker.delete_alias(name, alias)


def mark(tracker: Tracker, name: str, number: str) -> None:
    """Note up to which decision the aliases are settled."""
    if tracker.model_tag(name, SETTLED) != number:
        tracker.set_model_tag(name, SETTLED, number)


def number_of(tracker: Reader, name: str, wanted: VersionRecord | None) -> str | None:
    """Return the version with the decided weights: a registry that was made anew numbers them otherwise."""
    return tracker.numbers(name).get(wanted["model_sha256"]) if wanted is not None else None


def differences(tracker: Reader, name: str, state: State) -> list[str]:
    """Return where MLflow's aliases are not what the log says, a sentence each."""
    aliases = tracker.aliases(name)
    wrong = []
    for alias in ALIASES:
        wanted = number_of(tracker, name, state[alias])
        if aliases.get(alias) != wanted:
            has = f"version {aliases[alias]}" if alias in aliases else "nothing"
            wrong.append(f"alias {alias} points at {has}; the log says {f'version {wanted}' if wanted else 'nothing'}")
    return wrong


def drift(tracker: Reader, name: str) -> list[str]:
    """Return where aliases were moved without a decision; aliases that a crash left behind are not among them."""
    log = read_log(tracker.workspace)
    if tracker.model_tag(name, SETTLED) != newest(log, name):
        return []
    return differences(tracker, name, state_of(log, name))


def reconcile(tracker: Tracker, name: str, *, repair: bool = False) -> list[str]:
    """Finish what a crash left half-done and return what was done; with `repair` also undo aliases moved by hand."""
    with lease(tracker.workspace):
        return reconcile_locked(tracker, name, repair=repair)


def reconcile_locked(tracker: Tracker, name: str, *, repair: bool = False) -> list[str]:
    """As `reconcile`, for a caller that holds the lease; UserError on aliases moved by hand, unless they are repaired."""
    log = read_log(tracker.workspace)
    missing = mirror(tracker.workspace, log)
    done = [f"{missing} decision{'s' if missing > 1 else ''} written to the other copy of the log"] if missing else []
    if not any(entry["model"] == name for entry in log):
        return done
    moved = drift(tracker, name)
    if moved and not repair:
        raise UserError(
            f"{name}: {'; '.join(moved)}. It was moved without a decision; `compactlm history --repair` puts it back, "
            "`compactlm promote` or `compactlm rollback` then decides"
        )
    done += [f"set right: {difference}" for difference in differences(tracker, name, state_of(log, name))]
    if done or tracker.model_tag(name, SETTLED) != newest(log, name):
        settle(tracker, name)
    return done
