"""The flow `audit`: checks the champion again on a schedule, shows what it found, and alerts on the first failure.

`compactlm schedule --audit-cron "0 6 * * *"` serves it beside the runs. A failure is a flow run in the state Failed with the
sentence of the first check that fails, and an event `compactlm.audit.failed` on which an automation can act.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed

from tasks.audit.walk import audit
from tasks.errors import ResourceError
from tasks.params.file import model_name
from tasks.registry.tracking import Tracker, store_exists
from tasks.report.markdown import bullets, plain

EVENT: Final = "compactlm.audit.failed"
SHOWN: Final = 20  # lines of the artifact


@flow(name="audit", persist_result=False, validate_parameters=False)
def audit_champion(workspace: str = ".", model: str | None = None) -> State[Any] | dict[str, Any]:
    """Return the counts of an audit of the champion, or of `model`; the state Failed with the first fault."""
    folder = Path(workspace).absolute()
    if model is None and not _has_champion(folder):
        return Completed(name="NoChampion", message="there is no champion yet")
    try:
        report = audit(folder, model, get_run_logger().info)
    except ResourceError as error:
        return Completed(name="Skipped", message=str(error))
    create_markdown_artifact(_markdown(report), key="audit", description=plain(f"audit of {_title(report)}"))
    faults = [check for check in report["checks"] if check["result"] == "FAIL"]
    if not faults:
        return {key: report[key] for key in ("result", "model", "version", "counts", "seconds", "receipts_root")}
    resource = {"prefect.resource.id": f"compactlm.model.{report['model']}", "prefect.resource.name": _title(report)}
    emit_event(
        EVENT,
        resource=resource,
        payload={"workspace": str(folder), "model_sha256": report["model_sha256"], "faults": faults[:SHOWN]},
    )
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Failed(message=f"{_title(report)}: {_sentence(faults[0])}{more}", data=report["counts"])


def _has_champion(workspace: Path) -> bool:
    return store_exists(workspace) and "champion" in Tracker(workspace).aliases(model_name(workspace))


def _title(report: Mapping[str, Any]) -> str:
    return f"{report['model']}/{report['version']}"


def _sentence(check: Mapping[str, Any]) -> str:
    return f"{check['name']}: {check['subject']}: {check['sentence']}"


def _markdown(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    head = f"## {report['result']}: {plain(_title(report))} ({plain(report['round'])})\n\n{counts['PASS']} checks pass, "
    head += f"{counts['FAIL']} fail, {counts['UNKNOWN']} cannot be decided; {report['files']} files hashed.\n\n"
    wrong = [check for check in report["checks"] if check["result"] != "PASS"]
    lines = bullets(f"{check['result']} {_sentence(check)}" for check in wrong[:SHOWN])
    return head + lines + "\n`compactlm audit --html audit.html` has every check and the lineage as a graph.\n"
