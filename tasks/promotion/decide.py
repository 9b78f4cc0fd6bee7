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
from datetime import UTC, datetime
from typing import Any, Final

from tasks.errors import UserError
from tasks.lineage.receipts import git_state
from tasks.promotion.decision_page import as_markdown
from tasks.promotion.decisions import Decision, commit, lease, mirror, read_log, sealed
from tasks.registry.tracking import PREFIX, Tracker

ALIASES: Final = ("previous", "champion")  # in this order: there is never a champion whose predecessor is lost
ATTEMPTS: Final = 100
SETTLED: Final = "decision"
MAX_DESCRIPTION: Final = 5000  # characters that MLflow's store keeps
Judge = Callable[[dict[str, Any], dict[str, Any] | None], dict[str, Any]]  # (candidate, champion) -> verdict


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


def state_of(log: Sequence[Decision], name: str) -> dict[str, Any]:
    """Return `champion` and `previous` of a model by the log; None where there is none."""
    last = next((entry for entry in reversed(log) if entry["model"] == name), None)
    return {alias: last[alias] if last else None for alias in ALIASES}


def newest(log: Sequence[Decision], name: str) -> str:
    """Return the number of a model's last decision."""
    return str(max((entry["number"] for entry in log if entry["model"] == name), default=0))


def describe(tracker: Tracker, name: str, version: str) -> dict[str, Any]:
    """Return what identifies a version: number, digest of the weights, round, and its ids in MLflow."""
    for entry in tracker.versions(name):
        if str(entry.version) == version:
            tags = {key.removeprefix(PREFIX): value for key, value in entry.tags.items()}
            found = {key: tags.get(key) for key in ("model_sha256", "round", "model_id", "run_id", "teacher_run_id")}
            return {"version": version, **found}
    known = ", ".join(str(entry.version) for entry in tracker.versions(name)) or "none"
    raise UserError(f"{name}: there is no version {version}; registered: {known} (see `compactlm models`)")


def decide(tracker: Tracker, name: str, ask: Request, judge: Judge) -> Decision:
    """Return the recorded decision on `ask`: done, or refused with the verdict's reasons. UserError on a moved alias.

    The lease makes the processes of one machine wait for each other. Should somebody commit without it, the create-only
    ref refuses our number, and the candidate is judged again, against the champion there is then.
    """
    workspace = tracker.workspace
    for _ in range(ATTEMPTS):
        with lease(workspace):
            reconcile_locked(tracker, name)
            log = read_log(workspace)
            before = state_of(log, name)
            candidate = describe(tracker, name, ask.version)
            check_ask(ask, candidate, before, log, name)
            verdict = judge(candidate, before["champion"])
            entry = sealed(content(tracker, name, ask, candidate, before, verdict), log)
            if not commit(workspace, entry):
                continue
            mirror(workspace, read_log(workspace))
            settle(tracker, name)
            return entry
    raise UserError(f"{name}: {ATTEMPTS} other decisions came first; try again when fewer promotions are under way")


def check_ask(
    ask: Request, candidate: Mapping[str, Any], before: Mapping[str, Any], log: Sequence[Decision], name: str
) -> None:
    """Raise UserError for what is no question for a gate: nothing to change, or no champion to go back from."""
    champion = before["champion"]
    if champion is not None and champion["model_sha256"] == candidate["model_sha256"]:
        raise UserError(f"{name}: version {candidate['version']} is champion already; nothing to decide")
    if ask.kind == "first" and any(entry["model"] == name for entry in log):
        raise UserError(f"{name}: there have been decisions already; a first champion is no longer automatic")


def content(
    tracker: Tracker,
    name: str,
    ask: Request,
    candidate: dict[str, Any],
    before: dict[str, Any],
    verdict: dict[str, Any],
) -> dict[str, Any]:
    """Return a decision's content; a refused one leaves champion and previous as they were."""
    done = verdict["verdict"] == "pass"
    after = {"champion": candidate, "previous": before["champion"]} if done else dict(before)
    return {
        "model": name,
        "kind": ask.kind,
        "outcome": "done" if done else "refused",
        "candidate": candidate,
        "verdict": verdict,
        "reason": ask.reason,
        "actor": ask.actor,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git": git_state(tracker.workspace),
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


def point(tracker: Tracker, name: str, alias: str, wanted: Mapping[str, Any] | None) -> None:
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


def number_of(tracker: Tracker, name: str, wanted: Mapping[str, Any] | None) -> str | None:
    """Return the version with the decided weights: a registry that was made anew numbers them otherwise."""
    if wanted is None:
        return None
    numbers = {entry.tags.get(PREFIX + "model_sha256"): str(entry.version) for entry in tracker.versions(name)}
    return numbers.get(wanted["model_sha256"])


def differences(tracker: Tracker, name: str, state: Mapping[str, Any]) -> list[str]:
    """Return where MLflow's aliases are not what the log says, a sentence each."""
    aliases = tracker.aliases(name)
    found = []
    for alias in ALIASES:
        wanted = number_of(tracker, name, state[alias])
        if aliases.get(alias) != wanted:
            has = f"version {aliases[alias]}" if alias in aliases else "nothing"
            found.append(f"alias {alias} points at {has}; the log says {f'version {wanted}' if wanted else 'nothing'}")
    return found


def drift(tracker: Tracker, name: str) -> list[str]:
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
    done += [f"set right: {one}" for one in differences(tracker, name, state_of(log, name))]
    if done or tracker.model_tag(name, SETTLED) != newest(log, name):
        settle(tracker, name)
    return done
