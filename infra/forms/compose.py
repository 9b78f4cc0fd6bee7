"""The servers as a compose file: nothing runs as root, nothing but their volumes can be written, and no password is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from infra.forms.containers import DATABASES_SQL, arguments, check_command, environment, image, port, user, volume
from infra.forms.shared import LIMITS, as_yaml
from infra.stack import Process
from tasks.children import LOOPBACK

INTERVAL: Final = {"interval": "10s", "timeout": "10s", "retries": 12, "start_period": "60s"}


def files(processes: Sequence[Process]) -> dict[str, str]:
    """Return name -> content."""
    services = {process.name: _service(process) for process in processes}
    volumes: dict[str, Any] = {process.name: {} for process in processes}
    content = {"name": "compactlm", "services": services, "networks": {"inside": {}}, "volumes": volumes}
    return {"compose.yaml": as_yaml(content), "databases.sql": DATABASES_SQL}


def _service(process: Process) -> dict[str, Any]:
    is_database = process.name == "postgres"
    limits = LIMITS[process.name]
    return {
        "image": image(process),
        "command": arguments(process),
        "environment": environment(process),
        "env_file": [f"secrets/{process.name}.env"],
        "user": f"{user(process)}:{user(process)}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp", *(["/var/run/postgresql:uid=999,gid=999"] if is_database else [])],
        "volumes": [
            f"{process.name}:{volume(process)}",
            *(["./databases.sql:/docker-entrypoint-initdb.d/databases.sql:ro"] if is_database else []),
        ],
        "networks": ["inside"],
        # To this machine alone: who is elsewhere comes by a proxy that speaks HTTPS.
        **({} if is_database else {"ports": [f"{LOOPBACK}:{port(process)}:{port(process)}"]}),
        **({} if is_database else {"depends_on": {"postgres": {"condition": "service_healthy"}}}),
        "healthcheck": {"test": ["CMD", *check_command(process)], **INTERVAL},
        "restart": "always",
        "stop_grace_period": "30s",
        "deploy": {"resources": {"limits": {"cpus": str(limits.cores), "memory": f"{limits.memory}M"}}},
    }
