"""The aliases after a run: `challenger` is what it selected, the first champion ever is made by a decision of its own.

Later champions are only kept in order. A clone that does not know by which decision the aliases stand leaves all of them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import RoundPaths
from tasks.errors import UserError
from tasks.files import read_json
from tasks.git import has_git
from tasks.params.base import Params
from tasks.promotion.decide import Request, decide, reconcile
from tasks.promotion.decisions import read_log
from tasks.promotion.marks import refuse_stale
from tasks.promotion.remote import RemoteError, fetched_log
from tasks.registry.reading import default_uri
from tasks.registry.rebuild import Decided, rebuild_locked
from tasks.registry.runs import read_runs
from tasks.registry.selector import CHALLENGER, CHAMPION
from tasks.registry.tracking import Tracker, store_exists

console = logging.getLogger("compactlm")
ACTOR = "compactlm run"
DECIDED: Final = Decided(read_log, refuse_stale, reconcile)


def rebuild_lost(workspace: Path) -> None:
    """Make MLflow's index again where it is gone and Git has records of runs: else versions would get other numbers.

    The caller holds the workspace.
    """
    if store_exists(workspace) or not read_runs(workspace):
        return
    console.warning("MLflow's store is gone: %s; it is made again from Git and DVC", default_uri(workspace))
    answer = rebuild_locked(workspace, DECIDED, console.info)
    for lost in answer["lost"]:
        console.warning("registry: %s/%s: %s", lost["model"], lost["version"], lost["why"])
    for fault in answer["faults"]:
        console.warning("registry: %s", fault)


def settle_champion(tracker: Tracker, params: Params, version: str, selected: str) -> None:
    """Make the selected round challenger, and the first champion or bring the aliases to the log; what stands in the way is told.

    Where params.yaml asks for approvals the first champion is none by itself either, not even one found in MLflow.
    A run does not fail over its registry: aliases moved by hand or a broken log stop promotions, not training.
    """
    name = params.registry.model_name
    try:
        fault = _unreached(tracker, name)
    except UserError as error:
        console.warning("registry: every alias is left as it is: %s", error)
        return
    tracker.set_alias(name, CHALLENGER, version)
    if fault is not None:
        console.warning("registry: the champion is not settled: %s. Once it answers, `compactlm publish` settles it", fault)
        return
    if not has_git(tracker.workspace):
        console.warning("no champion: %s is in no Git repository, where decisions are recorded", tracker.workspace)
        return
    try:
        if any(entry["model"] == name for entry in read_log(tracker.workspace)):
            for line in reconcile(tracker, name):
                console.info("registry: %s", line)
            return
        if params.promotion.approval is not None:
            console.info("no champion yet: `compactlm promote challenger` asks the approvers")
            return
        champion = tracker.aliases(name).get(CHAMPION)
        if champion is not None:
            reason = "already champion when the log of decisions began"
            adopted: dict[str, Any] = {"verdict": "pass", "sentence": "adopted as it was found", "rules": []}
            decide(tracker, name, Request("adopt", champion, reason, ACTOR), lambda *_: adopted)
        else:
            # Judging imports what evaluations need, and most runs have a champion already.
            from tasks.promotion.gate import judge_first

            verdict = read_json(RoundPaths(tracker.workspace, selected).verdict)
            reason = f"first champion: {selected} is the smallest round whose gates pass"
            request = Request("first", version, reason, ACTOR)
            _tell(decide(tracker, name, request, lambda candidate, _: judge_first(tracker, params, candidate, verdict)))
    except UserError as error:
        console.warning("registry: %s", error)


def _unreached(tracker: Tracker, name: str) -> str | None:
    """Return why decisions cannot be fetched now; UserError where the log here is broken or not that of the aliases."""
    workspace = tracker.workspace
    fault = None
    try:
        log = fetched_log(workspace) if has_git(workspace) else []
    except RemoteError as error:
        log, fault = read_log(workspace), str(error)
    refuse_stale(tracker, name, log)
    return fault


def _tell(entry: dict[str, Any]) -> None:
    """Say what the decision says besides yes: why there is no champion, and warnings."""
    if entry["outcome"] != "done":
        again = "when it is mended, `compactlm promote challenger` asks again"
        console.warning("registry: no champion: %s; %s", entry["verdict"]["sentence"], again)
    for rule in entry["verdict"]["rules"]:
        if rule.get("check") and rule["severity"] == "warn" and rule["result"] != "pass":
            console.warning("registry: champion with a warning: %s", rule["sentence"])
