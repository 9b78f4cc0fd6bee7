"""What the servers of MLflow and Prefect say before a run needs them: their version, and what our user may do there.

Asked over HTTP alone: importing their clients takes seconds.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from tasks.errors import without_passwords

ASK_SECONDS: Final = 5.0
REASONS: Final = re.compile(  # in the long sentences of libraries
    r"\[Errno -?\d+\] ([^'\")]+)|(timed out)|(too many \d+ error responses)|(certificate verify failed[^'\")]*)"
)
TRACKING: Final = "MLFLOW_TRACKING_URI"  # names another store than the workspace's
REGISTRY: Final = "MLFLOW_REGISTRY_URI"  # and this one another for versions and aliases
USER: Final = "MLFLOW_TRACKING_USERNAME"
PASSWORD: Final = "MLFLOW_TRACKING_PASSWORD"
TOKEN: Final = "MLFLOW_TRACKING_TOKEN"
PREFECT: Final = "PREFECT_API_URL"
PREFECT_AUTH: Final = "PREFECT_API_AUTH_STRING"
OLDEST_MLFLOW: Final = (3, 17)  # the oldest that pyproject.toml allows here: a server knows no request that is newer than it
OLDEST_PREFECT: Final = (3, 8)
ENOUGH: Final = ("EDIT", "MANAGE", "")  # empty: of what is not there yet, or of a server that tells nobody
NONE: Final = "NO_PERMISSIONS"
DELETED: Final = "DELETED"
SUBJECTS: Final = {"experiment": "experiment", "registered_model": "registered model"}


def settle_credentials(environ: MutableMapping[str, str]) -> None:
    """Move users and passwords out of the addresses of servers, into the variables that are made for them.

    MLflow and Prefect show their addresses in pages, messages and records; so no address has a password to show.
    """
    taken: tuple[str, str] | None = None
    for name in (TRACKING, REGISTRY):
        address, who = split_credentials(environ.get(name, ""))
        # There is one variable for both: another user of another server stays where it is.
        if who is not None and taken in (None, who):
            taken = who
            environ[name], (environ[USER], environ[PASSWORD]) = address, who
    address, who = split_credentials(environ.get(PREFECT, ""))
    if who is not None:
        environ[PREFECT], environ[PREFECT_AUTH] = address, ":".join(who)


def split_credentials(address: str) -> tuple[str, tuple[str, str] | None]:
    """Return an address of HTTP without its user and password, and those; None where it has none of the kind."""
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        return address, None
    if not parts.scheme.startswith("http") or not host or user is None:
        return address, None
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return urlunsplit((parts.scheme, place, *parts[2:])), (unquote(user), unquote(parts.password or ""))


@dataclass
class Asked:
    """A server of HTTP, asked as whoever the environment says. `fault`: why it cannot be asked, empty as long as it can."""

    address: str
    environ: Mapping[str, str]
    fault: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **query: str) -> tuple[int, Any]:
        """Return the status and the content of an answer, JSON where it is some; status 0 when there is none in time."""
        import requests

        try:
            answer = requests.get(
                f"{self.address.rstrip('/')}/{path}",
                params=query,
                headers=self.headers,
                auth=self._login(),
                timeout=ASK_SECONDS,
                verify=self._verify(),
                cert=self.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
            )
        except requests.RequestException as error:
            self.fault = f"does not answer ({reason(str(error))})"
            return 0, None
        with suppress(ValueError):
            return answer.status_code, answer.json()
        return answer.status_code, answer.text

    def _verify(self) -> bool | str:
        if self.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            return False
        return self.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True

    def _login(self) -> tuple[str, str] | None:
        return None


class _AskedMlflow(Asked):
    """MLflow, asked as the user of MLFLOW_TRACKING_USERNAME, of MLflow's own file of credentials, or of an address."""

    def _login(self) -> tuple[str, str] | None:
        user, password = mlflow_login(self.environ)
        return (user, password) if user and password and TOKEN not in self.headers else None


class _AskedPrefect(Asked):
    def _login(self) -> tuple[str, str] | None:
        user, colon, password = self.environ.get(PREFECT_AUTH, "").partition(":")
        return (user, password) if colon else None


def mlflow_login(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return user and password as MLflow's client takes them: of the environment, else of ~/.mlflow/credentials."""
    file = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        file.read(Path("~/.mlflow/credentials").expanduser(), encoding="utf-8")
    kept = {name: str(file.get("mlflow", name.lower(), fallback="")) for name in (USER, PASSWORD)}
    return environ.get(USER) or kept[USER], environ.get(PASSWORD) or kept[PASSWORD]


def who_asks(environ: Mapping[str, str]) -> str:
    """Return as whom MLflow is asked, in words."""
    user, _ = mlflow_login(environ)
    return f"the user {user!r}" if user else f"the token of {TOKEN}" if environ.get(TOKEN) else "somebody without a name"


def ask_mlflow(address: str, environ: Mapping[str, str]) -> Asked:
    """Return the server of MLflow at an address, to be asked."""
    token = environ.get(TOKEN)
    return _AskedMlflow(address, environ, headers={"Authorization": f"Bearer {token}"} if token else {})


def mlflow_faults(address: str, environ: Mapping[str, str], model: str | None) -> list[str]:
    """Return why a run could not be recorded at a server of MLflow, a sentence each. `model`: names experiment and model."""
    server = ask_mlflow(address, environ)
    shown = without_passwords(address)
    status, version = server.get("version")
    if server.fault:
        return [f"{shown} {server.fault}"]
    if status in (401, 403):
        return [f"{shown} {refused(status, environ, str(version))}"]
    number = version_of(version)
    if number is None:
        return [f"{shown} is no server of MLflow: /version says {str(version)[:60]!r}"]
    if number < OLDEST_MLFLOW:
        return [f"{shown} runs MLflow {version}; {_dotted(OLDEST_MLFLOW)} or newer is needed: upgrade the server"]
    return [f"{shown} {line}" for line in rights_faults(rights_at(server, environ, model), environ, model)] if model else []


def rights_at(server: Asked, environ: Mapping[str, str], model: str) -> dict[str, str]:
    """Return what our user may do with the experiment and the registered model of a project, as MLflow calls it.

    NONE: not even read; DELETED: an experiment whose name is taken; empty where it is not there yet, or nobody is told.
    """
    status, found = server.get("api/2.0/mlflow/experiments/get-by-name", experiment_name=model)
    if status == 403:
        return {"experiment": NONE, "registered_model": ""}
    ids = {"experiment": "", "registered_model": ""}
    if status == 200:
        if found["experiment"].get("lifecycle_stage") == "deleted":
            return {"experiment": DELETED, "registered_model": ""}
        ids["experiment"] = found["experiment"]["experiment_id"]
    status, _ = server.get("api/2.0/mlflow/registered-models/get", name=model)
    ids["registered_model"] = model if status == 200 else ""
    user, _ = mlflow_login(environ)
    rights = {kind: _right(server, user, kind, name) if user and name else "" for kind, name in ids.items()}
    return {**rights, "registered_model": NONE} if status == 403 else rights


def _right(server: Asked, user: str, kind: str, name: str) -> str:
    path = "api/3.0/mlflow/users/permissions/get"
    status, content = server.get(path, username=user, resource_type=kind, resource_id=name)
    return str(content.get("permission") or "") if status == 200 and isinstance(content, Mapping) else ""


def rights_faults(rights: Mapping[str, str], environ: Mapping[str, str], model: str) -> list[str]:
    """Return which of the rights that a run needs are missing, after the address of the server."""
    if rights["experiment"] == DELETED:
        return [f"has a deleted experiment {model}, whose name is taken: restore it, or choose another registry.model_name"]
    if rights["experiment"] == NONE:
        return [missing(environ, "READ and EDIT", f"the experiment {model}")]
    return [missing(environ, "EDIT", f"the {SUBJECTS[kind]} {model}") for kind, right in rights.items() if right not in ENOUGH]


def ask_prefect(address: str, environ: Mapping[str, str]) -> Asked:
    """Return the server of Prefect at an address, to be asked."""
    key = environ.get("PREFECT_API_KEY")
    return _AskedPrefect(address, environ, headers={"Authorization": f"Bearer {key}"} if key else {})


def prefect_faults(address: str, environ: Mapping[str, str]) -> list[str]:
    """Return why a run could not be told to a server of Prefect, a sentence each."""
    key, server = environ.get("PREFECT_API_KEY"), ask_prefect(address, environ)
    shown = without_passwords(address)
    status, version = server.get("admin/version")
    if server.fault:
        return [f"{shown} {server.fault}"]
    if status in (401, 403):
        return [f"{shown} {prefect_refused(status, environ)}"]
    if key:
        return []  # Prefect's cloud tells no version
    number = version_of(version)
    if number is None:
        return [f"{shown} is no API of Prefect: /admin/version says {str(version)[:60]!r}; its address ends with /api"]
    if number < OLDEST_PREFECT:
        return [f"{shown} runs Prefect {version}; {_dotted(OLDEST_PREFECT)} or newer is needed: upgrade the server"]
    return []


def refused(status: int, environ: Mapping[str, str], words: str = "") -> str:
    """Return what MLflow's 401 or 403 means where nothing else is known, after the address of the server."""
    if status == 401:
        user, _ = mlflow_login(environ)
        advice = f"set {USER} and {PASSWORD} of a user who is known there"
        words = f"does not know {who_asks(environ)}, or the password is another one" if user else "wants a user and a password"
        return f"{words}; {advice}"
    return f"refuses {who_asks(environ)} ({words.strip()[:80] or 'forbidden'}); ask whoever manages that server"


def missing(environ: Mapping[str, str], right: str, subject: str) -> str:
    """Return the sentence about a right that our user lacks, after the address of the server."""
    return (
        f"refuses {who_asks(environ)}: {right} on {subject} is missing; ask whoever manages that server for it, "
        f"or set {USER} and {PASSWORD} of a user who has it"
    )


def prefect_refused(status: int, environ: Mapping[str, str]) -> str:
    """Return what Prefect's 401 or 403 means, after the address of the server."""
    given = environ.get(PREFECT_AUTH)
    if status == 403 or environ.get("PREFECT_API_KEY"):
        return "refuses the key of PREFECT_API_KEY; ask whoever manages that server"
    if given:
        return f"does not take the user and password of {PREFECT_AUTH}; ask whoever manages that server"
    return f"wants a password; set {PREFECT_AUTH} to USER:PASSWORD of that server"


def version_of(said: object) -> tuple[int, int] | None:
    """Return the first two numbers of a version; None of what is none."""
    found = re.match(r"v?(\d+)\.(\d+)", str(said))
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def reason(said: str) -> str:
    """Return in a few words why a request had no answer, by what a library says of it."""
    words = without_passwords(said)
    known = REASONS.search(words)
    return next((part for part in known.groups() if part), "") if known else words[:120]


def away(address: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return why a server of MLflow cannot be told anything now, empty when it answers at all."""
    server = ask_mlflow(address, environ)
    status, _ = server.get("health")
    return server.fault or (f"answers with error {status}" if status >= 500 else "")
