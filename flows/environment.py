"""Settings of Prefect that must stand in the environment before it is imported."""

from __future__ import annotations

import os
from pathlib import Path


def configure(workspace: Path) -> None:
    """Keep Prefect's files in the workspace, telemetry off and the console quiet, unless the user chose otherwise."""
    chosen = {
        "PREFECT_HOME": str(workspace.absolute() / ".compactlm" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # our own lines are enough; the server has them all
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine needs more than the default 20
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).expanduser().mkdir(
        parents=True, exist_ok=True
    )  # Prefect makes the last folder only
