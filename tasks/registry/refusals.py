"""What MLflow refuses, or cannot take now, as sentences for people: which server, who asked, which right is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from tasks.errors import AwayError, RightsError, UserError, without_passwords
from tasks.running.servers import missing, reason, refused

# The beginning of a name of MLflow's client -> the right that such a request needs; EDIT where none fits.
RIGHTS: Final = {
    "get_": "READ",
    "search_": "READ",
    "list_": "READ",
    "download_": "READ",
    "delete_": "MANAGE",
    "create_experiment": "the right to make one",
    "create_registered_model": "the right to make one",
}
OF_REGISTRY: Final = ("registered_model", "model_version")
REFUSED: Final = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
# How MLflow words that no answer came, and how databases do that are asked without a server of MLflow.
AWAY: Final = re.compile(r"^API request to \S+ failed with (timeout )?exception|\(psycopg2?\.OperationalError\)|\(pymysql\.err\.")
NO_ANSWER: Final = (502, 503, 504)


class Client:
    """MLflow's client, each of whose refusals is an error of ours: RightsError, or AwayError when no answer comes.

    `errors`: what the client raises for what comes over the network.
    """

    def __init__(self, client: Any, address: str, experiment: str | None, errors: tuple[type[Exception], ...]) -> None:
        self._client, self._address, self._experiment, self._errors = client, address, experiment, errors

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return self.guarded(method, name) if callable(method) else method

    def guarded(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a request to MLflow whose refusals are errors of ours; `name` is what MLflow's client calls it."""

        @wraps(method)
        def ask(*arguments: Any, **named: Any) -> Any:
            try:
                return method(*arguments, **named)
            except self._errors as error:
                told = self._told(error, name, arguments)
                if told is None:
                    raise
                raise told from error

        return ask

    def _told(self, error: Exception, name: str, arguments: tuple[Any, ...]) -> UserError | None:
        """Return what an error of MLflow's means for a person; None for one that has to be seen as it is."""
        server = without_passwords(self._address)
        status = _status(error)
        if status == 401:
            return RightsError(f"{server} {refused(401, os.environ)}")
        if status == 403:
            return RightsError(f"{server} {missing(os.environ, *self._right(name, arguments))}")
        if status == 0:
            words = without_passwords(str(error).splitlines()[0])
            return AwayError(f"{server} does not answer ({reason(words)}); is that server up?")
        return None

    def _right(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, str]:
        """Return which right a request needs, and on what."""
        right = next((right for start, right in RIGHTS.items() if name.startswith(start)), "EDIT")
        if "webhook" in name:
            return "the right to manage webhooks", "this server"
        if any(part in name for part in OF_REGISTRY):
            named = arguments[0] if arguments and isinstance(arguments[0], str) else ""
            model = re.sub(r"^name = '(.*)'$", r"\1", named)
            return right, f"the registered model {model}".strip()
        return right, f"the experiment {self._experiment or ''}".strip()


def _status(error: Exception) -> int | None:
    """Return 401 or 403 of a request that was refused, 0 of one that had no answer, None of any other error."""
    answer = getattr(error, "response", None)
    number = getattr(answer, "status_code", None)
    if number is not None:
        return 0 if number in NO_ANSWER else int(number) if number in (401, 403) else None
    if type(error).__module__.startswith("requests"):
        return 0
    if AWAY.search(str(error)) or getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
        return 0
    return REFUSED.get(str(getattr(error, "error_code", "")))
