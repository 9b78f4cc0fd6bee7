"""A Prefect server that goes away while a run works: what it shows is best effort, and the work ends as it would have.

A task run needs no server: its states are events that are sent beside. The flow run asks the server for each state, so its last
one may get no answer; then the work has ended all the same, and how it ended is kept here.
"""

from __future__ import annotations

import contextvars
import logging
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from tasks.children import LOOPBACK, local_opener
from tasks.progress import PREFIX
from tasks.report.markdown import plain

CHECK_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 10.0  # of a busy server
SHOW_SECONDS: Final = 5.0
ERRORS: Final = (httpx.HTTPError, PrefectException)  # with which Prefect's client tells that nobody answers
RETRIES: Final = 2  # of the client, after 2 and 4 seconds; the usual five take a minute, for each of some calls at the end
SENDING: Final = ("prefect.flow_runs", "prefect.task_runs")  # the loggers whose lines go to the server
console = logging.getLogger("compactlm")


@dataclass
class Ending:
    """How the work of a run ended, whatever becomes of the flow run that shows it: what it returned, or what was raised."""

    watch: Watch
    result: Any = None
    fault: BaseException | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what the block raises."""
        try:
            yield
        except BaseException as fault:
            self.fault = fault
            raise

    def show(self, publish: Callable[[], None]) -> None:
        """Let something be shown on the pages if that can be."""
        if not self.watch.away:
            try:
                publish()
            except ERRORS as error:
                console.warning("Prefect: what this run made is not shown on its pages: %s", error)


class Watch:
    """Asks a server at an API's address every few seconds, in a thread, and says once when it goes away and once when it is back.

    While it is away Prefect is given no events and no lines, which it would try to deliver for minutes, each for itself.
    """

    def __init__(self, api_url: str | None) -> None:
        self.api_url, self.away = api_url or "", False
        self._local = urlsplit(self.api_url).hostname == LOOPBACK
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch Prefect", daemon=True)

    def __enter__(self) -> Watch:
        for name in SENDING:
            logging.getLogger(name).addFilter(self._lets_pass)
        if self.api_url:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self.api_url:
            self._thread.join()
        if not self.away:  # else it is away for as long as this process will be there
            for name in SENDING:
                logging.getLogger(name).removeFilter(self._lets_pass)

    def _lets_pass(self, _record: logging.LogRecord) -> bool:
        return not self.away

    def _run(self) -> None:
        while not self._end.wait(CHECK_SECONDS):
            self.look()

    def look(self) -> None:
        """Ask now."""
        away = not self._answers()
        if away == self.away:
            return
        self.away = away
        EventsWorker.set_client_override(NullEventsClient if away else None)
        logging.raiseExceptions = not away  # for a line that was on its way, handlers would print what they could not do
        host = urlsplit(self.api_url).netloc.rpartition("@")[2]
        if away:
            console.warning("Prefect's server at %s cannot be reached; the run goes on, its pages lack what happens now", host)
        else:
            console.warning("Prefect's server at %s is back", host)

    def _answers(self) -> bool:
        opener = local_opener if self._local else urllib.request.build_opener()
        try:
            with opener.open(f"{self.api_url}/health", timeout=ANSWER_SECONDS):
                return True
        except urllib.error.HTTPError:  # an answer: it wants a password, or has no such page
            return True
        except urllib.error.URLError as error:
            return isinstance(error.reason, ssl.SSLError)  # so is this
        except TimeoutError:
            return True  # it has taken the connection
        except OSError:
            return False


_ENDING: ContextVar[Ending] = ContextVar("ending")


@contextmanager
def kept_ending(watch: Watch | None = None) -> Iterator[Ending]:
    """Give what keeps how this run ends: that of whoever started it here, else one of its own, with its server watched."""
    if known := _ENDING.get(None):
        yield known
        return
    with watch or Watch(PREFECT_API_URL.value()) as watching:
        token = _ENDING.set(Ending(watching))
        try:
            yield _ENDING.get()
        finally:
            _ENDING.reset(token)


class ProgressArtifact:
    """The progress of a stage on its Prefect page, shown by a thread of its own for the length of a `with`."""

    def __init__(self, stage: str, watch: Watch) -> None:
        self._stage, self._watch = stage, watch
        self._artifact: UUID | None = None
        self._latest: tuple[float, str] | None = (0.0, f"stage {stage}")
        self._end = threading.Event()
        run = contextvars.copy_context().run  # the thread is one of the task run
        self._thread = threading.Thread(target=run, args=(self._run,), name=f"show {stage}", daemon=True)

    def __enter__(self) -> Callable[[str], None]:
        self._thread.start()
        return self.hear

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=SHOW_SECONDS)

    def hear(self, line: str) -> None:
        """Take a line of the stage; of those of progress the latest will be shown."""
        percent = re.search(r"(\d+)%", line) if line.startswith(PREFIX) else None
        if percent:
            self._latest = (float(percent[1]), line.removeprefix(PREFIX))

    def _run(self) -> None:
        self._show()
        while not self._end.wait(SHOW_SECONDS):
            self._show()

    def _show(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None or self._watch.away:
            return
        try:
            if self._artifact is None:
                key = re.sub(r"[^a-z0-9]", "-", self._stage)
                made = create_progress_artifact(progress=latest[0], key=key, description=plain(latest[1]))
                assert isinstance(made, UUID)  # not a coroutine: this is a thread without an event loop
                self._artifact = made
            else:
                update_progress_artifact(self._artifact, progress=latest[0], description=plain(latest[1]))
        except ERRORS as error:  # the next one may be shown
            console.debug("progress of %s: %s", self._stage, error)
