"""Promotion as a transaction: read the champion, judge against it, commit a decision, move the aliases, read them back.

The decision in the log (tasks/promotion/decisions.py) is the truth; MLflow's aliases follow from it. A crash before the
commit leaves nothing, one after it leaves aliases that `reconcile` brings up to the log. The model tag `decision` says up to
which decision the aliases were brought: aliases that differ at that decision were moved by hand. A clone that does not know
it leaves them alone (tasks/promotion/marks.py).
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import UserError
from tasks.lineage.loaded import changed_since_import, listed
from tasks.lineage.receipts import git_state
from tasks.promotion.decision_page import as_markdown
from tasks.promotion.decisions import Decision, VersionRecord, commit, lease, mirror, now, read_log, sealed, version_record
from tasks.promotion.marks import BEGUN, SETTLED, StaleError, is_settled, put_mark, refuse_stale
from tasks.promotion.remote import exchange, fetched_log, offer
from tasks.registry.reading import Reader, own_tags
from tasks.registry.tracking import Tracker

ALIASES: Final = ("previous", "champion")  # in this order: there is never a champion whose predecessor is lost
ATTEMPTS: Final = 100
PATIENCE: Final = 5  # looks at aliases that are not what they were just set to: another clone may be about to set them, too
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
    last = newest(log, name)
    return {alias: last[alias] if last else None for alias in ALIASES}


def newest(log: Sequence[Decision], name: str) -> Decision | None:
    """Return a model's last decision, None before the first."""
    return next((entry for entry in reversed(log) if entry["model"] == name), None)


def known_log(tracker: Reader, name: str) -> list[Decision]:
    """Return the log for one who judges by it, the remote's decisions in it.

    Raises StaleError where the aliases of a model stand by a decision that is not in it.
    """
    log = fetched_log(tracker.workspace)
    refuse_stale(tracker, name, log)
    return log


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

    The lease makes the processes of one machine wait for each other. Should somebody commit without it, here or at the remote,
    the create-only ref refuses our number, and the candidate is judged again, against the champion there is then.
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
            if changed := changed_since_import():
                raise UserError(f"{name}: not decided: {listed(changed)} changed since this command began; call it again")
            entry = sealed({**decision, "git": git_state(workspace)}, log)
            if not offer(workspace, entry) or not commit(workspace, entry):
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


def settle(tracker: Tracker, name: str, drop: str = "") -> None:
    """Bring the aliases to what the newest decision says, and read them back; again if a newer one came meanwhile.

    Which decision that is stands in the registry before the first alias moves: a clone that does not know it then leaves the
    aliases alone, even if this process dies on the way. Raises StaleError where another clone has decided meanwhile and there
    is no remote from which that could be taken.
    """
    for attempt in range(1, ATTEMPTS + 1):
        log = _log_of_registry(tracker, name, drop)
        state, last = state_of(log, name), newest(log, name)
        assert last is not None, "aliases are settled by a decision"
        if not is_settled(tracker, name, last):
            put_mark(tracker, name, BEGUN, last)
        for alias in ALIASES:
            point(tracker, name, alias, state[alias])
        if len(_log_of_registry(tracker, name, drop)) != len(log):
            continue  # a slow process of an older decision must not have the last word
        wrong = differences(tracker, name, state)
        if not wrong:
            describe_newest(tracker, name, last)
            return mark(tracker, name, last)
        if attempt == PATIENCE:
            raise UserError(f"{name}: {'; '.join(wrong)}, right after it was set; is another program moving aliases?")
    raise UserError(f"{name}: {ATTEMPTS} other decisions came first; `compactlm history --repair` brings the aliases to the last")


def _log_of_registry(tracker: Tracker, name: str, drop: str) -> list[Decision]:
    """Return the log with the decision by which the aliases stand; StaleError where it is neither here nor at a remote."""
    while True:
        log = read_log(tracker.workspace)
        try:
            refuse_stale(tracker, name, log, drop)
        except StaleError:
            if not exchange(tracker.workspace):  # what others decide reaches the remote first, so it is there by now
                raise
        else:
            return log


def describe_newest(tracker: Tracker, name: str, entry: Decision) -> None:
    """Show the newest decision on the page of the version it is about."""
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


def mark(tracker: Tracker, name: str, entry: Decision) -> None:
    """Note up to which decision the aliases are settled."""
    put_mark(tracker, name, SETTLED, entry)


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
    last = newest(log, name)
    if last is None or not is_settled(tracker, name, last):
        return []
    return differences(tracker, name, state_of(log, name))


def reconcile(tracker: Tracker, name: str, *, repair: bool = False, drop: str = "") -> list[str]:
    """Finish what a crash left half-done and return what was done; with `repair` also undo aliases moved by hand.

    `drop` is the label of a decision of another clone by which the aliases stand and which shall not count.
    """
    with lease(tracker.workspace):
        return reconcile_locked(tracker, name, repair=repair, drop=drop)


def reconcile_locked(tracker: Tracker, name: str, *, repair: bool = False, drop: str = "") -> list[str]:
    """As `reconcile`, for a caller that holds the lease; UserError on aliases moved by hand, unless they are repaired.

    The remote's decisions are taken first; raises as `exchange`. Raises StaleError, whatever is to be repaired, in a clone that
    does not know by which decision the aliases stand.
    """
    done = exchange(tracker.workspace)
    log = read_log(tracker.workspace)
    if missing := mirror(tracker.workspace, log):
        done.append(f"{missing} decision{'s' if missing > 1 else ''} written to the other copy of the log")
    log = _log_of_registry(tracker, name, drop)  # others may have decided since the remote was asked
    last = newest(log, name)
    if last is None:
        return done
    moved = drift(tracker, name)
    if moved and not repair:
        raise UserError(
            f"{name}: {'; '.join(moved)}. It was moved without a decision; `compactlm history --repair` puts it back, "
            "`compactlm promote` or `compactlm rollback` then decides"
        )
    done += [f"set right: {difference}" for difference in differences(tracker, name, state_of(log, name))]
    if done or not is_settled(tracker, name, last):
        settle(tracker, name, drop)
    return done
