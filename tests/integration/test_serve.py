"""`compactlm schedule` with a real Prefect server: a promotion that waits for people holds no process, and then goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.running.identity import workspace_id
from tests.integration import test_approvals as people
from tests.integration.conftest import shell

registry_template, project, compactlm, keys = people.registry_template, people.project, people.compactlm, people.keys
PATIENCE_SECONDS = 300


def wait_for(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError("it did not come to pass")


def at_work(serving: subprocess.Popen[str]) -> list[str]:
    """Return the command lines of the processes that run a flow for a server of flows."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process(serving.pid).children(recursive=True)]
    return [line for line in lines if not any(word in line for word in ("prefect.server", "prefect server", "multiprocessing"))]


@pytest.mark.slow
def test_a_served_promotion_is_suspended_and_goes_on(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings

    shell(project, sys.executable, "-m", "dvc", "init", "-q")
    command = [sys.executable, "-c", "from tasks.cli.app import main; main()", "schedule", "--json", "--cron", "0 0 1 1 *"]
    with subprocess.Popen(
        command, cwd=project, env={**os.environ, "PYTHONPATH": str(people.story.ROOT)}, stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stdout is not None
            lines = [serving.stdout.readline()]
            while lines[-1].rstrip() != "}":
                lines.append(serving.stdout.readline())
                assert serving.poll() is None
            url = json.loads("".join(lines))["prefect"]
            with temporary_settings({PREFECT_API_URL: f"{url}/api"}), get_client(sync_client=True) as client:

                def deployment() -> Any:
                    try:
                        return client.read_deployment_by_name(f"promote/compactlm project {workspace_id(project)}")
                    except ObjectNotFound:
                        return None

                run = client.create_flow_run_from_deployment(wait_for(deployment).id, parameters={"version": "1"})
                wait_for(lambda: client.read_flow_run(run.id).state.name == "Suspended")
                wait_for(lambda: not at_work(serving))
                signed = compactlm("approve", "--print", "--key", str(keys[people.ADA])).out
                answer = {"name": people.ADA, "decision": "approve", "signature": signed}
                client.resume_flow_run(run.id, run_input=answer)
                wait_for(lambda: client.read_flow_run(run.id).state.is_final())
                state = client.read_flow_run(run.id).state
            assert (state.name, state.message) == ("Completed", "decision 2: version 1 (r1) is champion")
        finally:
            serving.terminate()
