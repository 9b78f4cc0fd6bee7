"""The champion after a run: the first one ever is made by a decision of its own, later ones are only kept in order."""

from __future__ import annotations

import logging
from typing import Any

from tasks.errors import UserError
from tasks.lineage.files import read_json
from tasks.registry.decisions import has_git, read_log
from tasks.registry.promotion import Ask, decide, reconcile
from tasks.registry.tracking import Tracker

console = logging.getLogger("compactlm")
ACTOR = "compactlm run"


def settle_champion(tracker: Tracker, name: str, version: str, selected: str, *, by_people: bool) -> None:
    """Make the selected round the first champion, or bring the aliases to the log; what stands in the way is told.

    With `by_people` (params.yaml asks for approvals) the first champion is none by itself either, not even one found in MLflow.
    A run does not fail over its registry: aliases moved by hand or a broken log stop promotions, not training.
    """
    if not has_git(tracker.workspace):
        console.warning("no champion: %s is in no Git repository, where decisions are recorded", tracker.workspace)
        return
    try:
        if any(entry["model"] == name for entry in read_log(tracker.workspace)):
            for line in reconcile(tracker, name):
                console.info("registry: %s", line)
            return
        if by_people:
            console.info("no champion yet: `compactlm promote challenger` asks the approvers")
            return
        found = tracker.aliases(name).get("champion")
        if found is not None:
            reason = "already champion when the log of decisions began"
            decide(
                tracker, name, Ask("adopt", found, reason, ACTOR), lambda *_: _verdict("adopted as it was found", [])
            )
        else:
            folder = tracker.workspace / "artifacts" / "rounds" / selected
            verdict = read_json(folder / "verdict.json")
            words = str(verdict.get("sentence", "its gates pass"))
            ask = Ask("first", version, f"first champion: {selected} is the smallest round whose gates pass", ACTOR)
            decide(tracker, name, ask, lambda *_: {**_verdict(words, verdict["rules"]), "verdict": verdict["verdict"]})
    except UserError as error:
        console.warning("registry: %s", error)


def _verdict(sentence: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"verdict": "pass", "sentence": sentence, "rules": rules}
