"""Whether the registry still says what was decided: the check of `compactlm history --check`, `watch` and `serve`."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import UserError
from tasks.promotion.decide import ALIASES, differences, number_of, state_of
from tasks.promotion.decisions import LOG, Decision, lease, read_lines, read_log, read_refs
from tasks.registry.tracking import Tracker


def registry_faults(tracker: Tracker, name: str) -> list[str]:
    """Return where aliases or a copy of the log are not what was decided, a sentence each.

    A promotion that is under way on this machine is waited for.
    """
    workspace = tracker.workspace
    with lease(workspace):
        try:
            log = read_log(workspace)
        except UserError as error:
            return [str(error)]
        found = _of_aliases(tracker, name, log) if any(entry["model"] == name for entry in log) else []
        lines, refs = len(read_lines(workspace)), len(read_refs(workspace))
        if lines != refs:
            found.append(f"{LOG} has {lines} decisions, the Git refs have {refs}")
        return found


def _of_aliases(tracker: Tracker, name: str, log: Sequence[Decision]) -> list[str]:
    state = state_of(log, name)
    found = differences(tracker, name, state)
    for alias in ALIASES:
        one = state[alias]
        # MLflow takes the aliases of a deleted version away without a word.
        if one is not None and number_of(tracker, name, one) is None:
            found.append(
                f"{alias} is version {one['version']} by the log, and no registered version has its weights "
                f"({one['model_sha256'][:12]})"
            )
    return found
