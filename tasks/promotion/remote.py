"""One log of decisions for all clones: the refs of a Git remote, which `promotion.remote` of params.yaml names.

Git makes a ref at the remote only where there is none, so of two clones that decide at once exactly one gets the number: that
push is the moment of decision. No ref is ever replaced, here or there: logs that part are shown, and people choose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tasks.errors import UserError
from tasks.git import create_blob, fetch_objects, push_new, read_blobs, refs_at, refs_of
from tasks.params.file import read_yaml
from tasks.promotion.decisions import REFS, Decision, faults, lease, mirror, read_log, told
from tasks.promotion.marks import how_to_take
from tasks.running.surroundings import REMOTE_KEY, remote_faults

ATTEMPTS: Final = 3  # others may push between two looks


class RemoteError(UserError):
    """The remote does not answer, or does not take what it is given: nothing can be decided."""


class ForkError(UserError):
    """The log here and the one at the remote part: two clones have decided one number."""


def remote_of(workspace: Path) -> str | None:
    """Return the remote that params.yaml names for decisions, None where they are this clone's alone."""
    path = workspace / "params.yaml"
    values = read_yaml(path) if path.exists() else None
    asked = values.get("promotion") if isinstance(values, Mapping) else None
    return str(asked["remote"]) if isinstance(asked, Mapping) and asked.get("remote") else None


def exchange(workspace: Path) -> list[str]:
    """Bring the log here and the one at the remote to the same, and return what was done; nothing without a remote.

    Raises RemoteError when the remote cannot be asked, ForkError when each has another decision under one number. Call it
    holding the lease.
    """
    remote = remote_of(workspace)
    if remote is None:
        return []
    if wrong := remote_faults(workspace, remote):
        raise RemoteError(wrong[0])
    refused = ""
    for _ in range(ATTEMPTS):
        theirs, log = _read_remote(workspace, remote), read_log(workspace)
        _refuse_fork(remote, theirs, log)
        if len(theirs) >= len(log):
            mirror(workspace, theirs)
            return [f"{_count(len(theirs) - len(log))} taken from {remote}"] if len(theirs) > len(log) else []
        refused = push_new(workspace, remote, _named(workspace, log[len(theirs) :]))
        if not refused:
            return [f"{_count(len(log) - len(theirs))} brought to {remote}"]
    raise RemoteError(f"{REMOTE_KEY}: {remote} does not take decisions: {refused}. Nothing is decided from here before it does")


def fetched_log(workspace: Path) -> list[Decision]:
    """Return the log after the remote's decisions were taken; raises as `exchange`."""
    with lease(workspace):
        exchange(workspace)
        return read_log(workspace)


def offer(workspace: Path, entry: Decision) -> bool:
    """Return whether a decision got its number at the remote, True without one; False when another one has it already.

    Raises RemoteError when nobody knows, or the remote takes none.
    """
    remote = remote_of(workspace)
    if remote is None:
        return True
    refs = _named(workspace, [entry])
    refused = push_new(workspace, remote, refs)
    if not refused:
        return True
    name, blob = next(iter(refs.items()))
    there = _ask(workspace, remote, f"whether decision {entry['number']} was made shows when it is asked again").get(name)
    if there is None:
        raise RemoteError(
            f"{REMOTE_KEY}: {remote} does not take the decision: {refused}. Nothing was decided; mend that and try again"
        )
    return there == blob  # else somebody was first


def _ask(workspace: Path, remote: str, otherwise: str) -> dict[str, str]:
    try:
        return refs_at(workspace, remote, REFS)
    except OSError as error:
        raise RemoteError(f"{REMOTE_KEY}: {remote} cannot be reached: {error}; {otherwise}") from None


def _read_remote(workspace: Path, remote: str) -> list[Decision]:
    """Return the decisions at a remote, oldest first; what this clone does not have yet is fetched, and no ref is changed."""
    there, here = _ask(workspace, remote, "nothing is decided from here before it answers"), refs_of(workspace, REFS)
    try:
        if new := [name for name, blob in there.items() if here.get(name) != blob]:
            fetch_objects(workspace, remote, new)
        log = [dict(json.loads(content)) for content in read_blobs(workspace, there).values()]
    except OSError as error:
        raise RemoteError(
            f"{REMOTE_KEY}: {remote} cannot be reached: {error}; nothing is decided from here before it answers"
        ) from None
    except ValueError:
        raise RemoteError(f"{REMOTE_KEY}: {remote}: what {REFS} has there are no decisions; find out who changed it") from None
    if broken := faults(log):
        raise RemoteError(
            f"{REMOTE_KEY}: the log of decisions at {remote} is not intact: {'; '.join(broken)}; find out who changed it"
        )
    return log


def _refuse_fork(remote: str, theirs: Sequence[Decision], log: Sequence[Decision]) -> None:
    for their, mine in zip(theirs, log, strict=False):
        if their != mine:
            raise ForkError(
                f"decision {mine['number']} was made twice: here {told(mine)}, at {remote} {told(their)}; nothing is changed "
                f"from here while they differ. {how_to_take(remote)}"
            )


def _named(workspace: Path, entries: Sequence[Decision]) -> dict[str, str]:
    """Return ref -> blob of decisions, which Git keeps from now on."""
    return {_name(entry): create_blob(workspace, json.dumps(entry, sort_keys=True)) for entry in entries}


def _name(entry: Decision) -> str:
    return f"{REFS}/{entry['number']:08d}"


def _count(number: int) -> str:
    return f"{number} decision{'' if number == 1 else 's'}"
