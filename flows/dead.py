"""Runs of flows that died without a word: by kill -9, with their machine, or with their server of flows.

Prefect calls them running for ever, and keeps their place in a limit of one run at a time. Whoever holds the workspace knows
better: nothing else runs in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.server import API
from tasks.running.identity import workspace_id

BEGUN: Final = (StateType.RUNNING, StateType.CANCELLING)
UNDER_WAY: Final = (StateType.PENDING, *BEGUN)
console = logging.getLogger("compactlm")


def tag_of(workspace: Path) -> str:
    """Return the tag of all runs of flows in a workspace, on whichever server they are."""
    return f"workspace:{workspace_id(workspace)}"


def mark_dead(
    workspace: Path, flows: Sequence[str], states: Collection[StateType], asked_for: Mapping[str, str] | None = None
) -> int:
    """Return how many runs of flows in this workspace were still said to be in such states, and mark them as crashed.

    `asked_for`: parameters that they have besides. Call it holding what such runs hold; the run that calls it is not among them.
    """
    asked: dict[str, Any] = {"state": {"type": {"any_": list(states)}}}
    if os.environ.get(API):  # on a server of our own all are this workspace's, those of former versions without a tag, too
        asked["tags"] = {"all_": [tag_of(workspace)]}
    with get_client(sync_client=True) as client:
        names = FlowFilter(name=FlowFilterName(any_=list(flows)))
        found = client.read_flow_runs(flow_filter=names, flow_run_filter=FlowRunFilter.model_validate(asked))
        wanted = (asked_for or {}).items()
        dead = [run.id for run in found if str(run.id) != flow_run.id and wanted <= (run.parameters or {}).items()]
        for run_id in dead:
            client.set_flow_run_state(run_id, Crashed(message="it was stopped in the middle, and nothing runs here any more"))
    return len(dead)


def forget_dead(workspace: Path, flow: str) -> None:
    """Mark the dead runs of a flow as crashed before the next one; a server that does not answer is told, and no hindrance."""
    try:
        mark_dead(workspace, [flow], BEGUN)
    except (httpx.HTTPError, PrefectException) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        console.warning("Prefect: whether an earlier run died could not be asked: %s", line)
