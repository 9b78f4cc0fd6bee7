"""The flow `promote`: judges a version, and asks people in a form where params.yaml wants their signatures.

While it waits the run is suspended: no process is held. Whoever answers starts it again, from its beginning; it judges anew,
finds the earlier answers, and goes on from there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed, Failed

from tasks.errors import UserError
from tasks.params.file import load_params
from tasks.promotion.answers import keep_answer, pasted_answer
from tasks.promotion.approval import digest_of, moment
from tasks.promotion.decision_page import as_markdown
from tasks.promotion.decisions import Decision
from tasks.promotion.proposals import WaitingError, is_waiting, promote_version
from tasks.registry.tracking import Tracker
from tasks.report.markdown import code, plain

ARTIFACT: Final = "decision"


class Answer(RunInput):
    """What an approver fills in."""

    name: str
    decision: Literal["approve", "reject"]
    signature: str


@flow(name="promote", persist_result=False, validate_parameters=False)
def promote(workspace: str = ".", version: str = "challenger", reason: str = "") -> State[Any]:
    """Return Completed when the version is champion now, Failed when it was refused; suspended while people are asked."""
    folder = Path(workspace).absolute()
    trouble = ""
    for number in count():
        asked = _decide(folder, version, reason)
        if isinstance(asked, State):
            return asked
        answer = suspend_flow_run(
            wait_for_input=_form(asked, trouble), timeout=_seconds_left(asked), key=f"{digest_of(asked)[:16]}-{number}"
        )
        trouble = _take(folder, asked, answer)
    raise AssertionError("count() has no end")


def _decide(folder: Path, version: str, reason: str) -> State[Any] | dict[str, Any]:
    """Return how the promotion ended, or the proposal that waits for people."""
    params = load_params(folder / "params.yaml")
    try:
        entry = promote_version(Tracker(folder, params.registry.model_name), params, version, reason)
    except WaitingError as waiting:
        return dict(waiting.proposal)
    create_markdown_artifact(as_markdown(entry), key=ARTIFACT)
    if is_waiting(entry):
        return dict(entry["verdict"]["approval"]["proposal"])
    return _ended(entry)


def _ended(entry: Decision) -> State[Any]:
    words = f"decision {entry['number']}: version {entry['candidate']['version']} ({entry['candidate']['round']})"
    if entry["outcome"] == "done":
        return Completed(message=f"{words} is champion")
    return Failed(message=f"{words} is refused: {entry['verdict']['sentence']}")


def _form(proposal: dict[str, Any], trouble: str) -> type[Answer]:
    approvers, end = plain(", ".join(proposal["policy"]["approvers"])), plain(proposal["expires_at"])
    words = (
        f"{plain(proposal['round'])} of {plain(proposal['model'])}, weights {code(proposal['candidate'][:16])}, is to become "
        f"champion. Its gates pass. {plain(proposal['policy']['quorum'])} of {approvers} must approve before {end}.\n\n"
        "Run `compactlm approve --print` (or `compactlm reject --reason WHY --print`) in a project with this "
        "`decisions.jsonl`, and paste the line it prints as signature."
    )
    return Answer.with_initial_data(
        description=f"{words}\n\nThe answer before did not count: {plain(trouble)}" if trouble else words
    )


def _take(folder: Path, proposal: dict[str, Any], answer: Answer) -> str:
    """Keep an answer that counts, and return what is wrong with another one."""
    try:
        keep_answer(folder, pasted_answer(answer.signature, proposal, answer.name, answer.decision))
    except UserError as error:
        get_run_logger().warning("%s", error)
        return str(error)
    return ""


def _seconds_left(proposal: dict[str, Any]) -> int:
    return max(1, int((moment(proposal["expires_at"]).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()))
