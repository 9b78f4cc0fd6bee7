"""`compactlm join`: one command in a group that torchrun or srun started, over machines.

The first process runs the command as if it were alone: DVC, Prefect and the files are its own. Each stage that trains tells the
others, through the store of the group, what it was asked; they run the same stage beside it, without DVC, and write nothing. All
show each other that they live, so that none waits for one that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any, Final, TextIO

from tasks import children
from tasks.errors import StageError, UserError
from tasks.progress import say
from tasks.running.group import LOOK_SECONDS, NEEDED, Group, Store, host_name, read_group
from tasks.running.meet import meeting_of

PULSE_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 30.0  # after which a process counts as gone
GRACE_SECONDS: Final = 10.0  # for a command that is to end
OWN_WORDS_SECONDS: Final = 5.0  # in which the first's command may say itself why a training ended
LEAVE_SECONDS: Final = 5.0  # in which the others hear how it ended
MODULES: Final = {"compactlm": "tasks.cli", "dvc": "dvc"}
AGAIN: Final = "this one ends as well. Start all nodes again: training goes on from the last saved state"


class Pulse:
    """Shows the others of a group that this process lives, and knows who of them does; a thread with a connection of its own."""

    def __init__(self, store: Store) -> None:
        self._store, self._count = store, store.group.count
        self._seen: list[tuple[int, float]] = [(0, time.monotonic())] * self._count
        self._own, self._broken, self._end = time.monotonic(), False, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()

    def silent(self, ranks: Sequence[int]) -> list[int]:
        """Return those of the ranks that have shown no life for `SILENT_SECONDS`; all where the store is out of reach."""
        now = time.monotonic()
        if self._broken or now - self._own > SILENT_SECONDS:
            return list(ranks)
        return [rank for rank in ranks if now - self._seen[rank][1] > SILENT_SECONDS]

    def _beat(self) -> None:
        group, beats = self._store.group, 0
        while not self._end.wait(PULSE_SECONDS):
            beats += 1
            try:
                self._store.put(f"alive/{group.rank}", beats)
                heard = [self._store.look(f"alive/{rank}") or 0 for rank in range(self._count)]
            except RuntimeError:  # who held the store is gone
                self._broken = True
                return
            self._own = time.monotonic()
            self._seen = [
                (count, self._own) if count != before else (before, when)
                for count, (before, when) in zip(heard, self._seen, strict=True)
            ]


def module_of(command: Sequence[str]) -> list[str]:
    """Return a command as what follows `python -m`; UserError for a program that is not of this project."""
    words = [*command] or ["compactlm", "run"]
    if words[:2] == ["python", "-m"] and len(words) > 2:
        return words[2:]
    if words[0] not in MODULES:
        raise UserError(
            f"compactlm join: {words[0]!r}: the command is one of `compactlm ...` (`compactlm run` where none is given), "
            "`dvc ...` and `python -m ...`"
        )
    return [MODULES[words[0]], *words[1:]]


@dataclass(frozen=True)
class Ended:
    """How a joined command ended: its exit code, which process of the group this was, and the machines, by rank."""

    code: int
    rank: int
    hosts: list[str]


def join(command: Sequence[str], patience: float, prints_to: TextIO | None = None) -> Ended:
    """Return how the command ended, which the first process of the group runs; `prints_to` is its standard output.

    ResourceError without a group, or when one of its processes does not appear within `patience` seconds; StageError when one is
    gone later. Whatever raises, what was started here is ended.
    """
    words = module_of(command)
    group = read_group(os.environ)
    store = Store(group, host=group.rank == 0, patience=patience)
    hosts = store.gather("joined", host_name(), patience)
    pulse = Pulse(Store(group, host=False, patience=patience))
    if group.rank == 0:
        say(f"joined: {group.count} processes on {', '.join(dict.fromkeys(hosts))}; this one (rank 0) runs `{' '.join(words)}`")
    else:
        say(f"joined: process {group.rank + 1} of {group.count} (rank {group.rank}); {hosts[0]} (rank 0) runs the command")
    member = Member(store, pulse, hosts)
    try:
        return Ended(member.lead(words, prints_to) if group.rank == 0 else member.follow(), group.rank, hosts)
    except RuntimeError as error:  # of the store
        raise StageError("compactlm join", f"the group's store is out of reach ({str(error).splitlines()[0]}); {AGAIN}") from None
    finally:
        pulse.stop()


class Member:
    """This process's part in a group that has come together."""

    def __init__(self, store: Store, pulse: Pulse, hosts: Sequence[str]) -> None:
        self._store, self._pulse, self._hosts, self._group = store, pulse, hosts, store.group
        self._failed_since = 0.0

    def lead(self, words: Sequence[str], prints_to: TextIO | None) -> int:
        """Run the command, and tell the others how it ended."""
        code = 1
        try:
            env = _environment(self._group, {children.GROUP: self._group.dumps()})
            with children.running(words, GRACE_SECONDS, env=env, stdout=prints_to) as child:
                code = self._watched(child, self._see_others)
        except KeyboardInterrupt:
            code = 130
            raise
        finally:
            self._tell_end(code)
        return code

    def follow(self) -> int:
        """Take part in one training after the other, and return how the first one's command ended."""
        number = 1
        while (code := self._store.look("end")) is None:
            request = self._store.look(f"request/{number}")
            if request is None:
                self._see_first()
                time.sleep(LOOK_SECONDS)
                continue
            self._take_part(request, number)
            number += 1
        self._store.put(f"left/{self._group.rank}", True)
        return int(code)

    def _take_part(self, request: dict[str, Any], number: int) -> None:
        """Run a stage beside the first one's; what it refuses, or its end, is told to the first."""
        stage = request["stage"] or request["argv"][0]
        say(f"{stage}: this is process {self._group.rank + 1} of {self._group.count}")
        with tempfile.TemporaryDirectory(prefix="compactlm-") as folder:
            words = Path(folder) / "refused.json"
            names = {
                children.GROUP: self._group.dumps(),
                children.MEETING: meeting_of(number),
                children.ERROR_FILE: str(words),
                "DVC_STAGE": request["stage"],
            }
            with children.running(["tasks", *request["argv"]], 0.0, env=_environment(self._group, names)) as child:
                code = self._watched(child, self._see_first)
            if code in (0, None):
                return
            message = json.loads(words.read_text(encoding="utf-8"))["message"] if words.exists() else ""
        fault = {"stage": stage, "code": code, "message": message}
        self._store.put(f"failed/{self._group.rank}", fault)
        self._wait(lambda: self._store.look("end") is not None, GRACE_SECONDS + OWN_WORDS_SECONDS)
        self._store.put(f"left/{self._group.rank}", True)
        raise self._fault(self._group.rank, fault)

    def _watched(self, child: Popen[Any], look: Callable[[], object]) -> int:
        """Return the exit code of a child; `look` is called meanwhile, ends it by raising, or by returning anything."""
        while child.poll() is None:
            if look():
                return 0
            time.sleep(LOOK_SECONDS)
        return int(child.returncode if child.returncode >= 0 else 128 - child.returncode)

    def _see_others(self) -> None:
        """Raise for one of the others that failed or is gone."""
        others = range(1, self._group.count)
        for rank in others:
            if fault := self._store.look(f"failed/{rank}"):
                self._failed_since = self._failed_since or time.monotonic()
                # a training that fails at the first ends the others', too: then its own words count
                if fault["message"] or time.monotonic() - self._failed_since > OWN_WORDS_SECONDS:
                    raise self._fault(rank, fault)
        if silent := self._pulse.silent(others):
            raise self._gone(silent[0])

    def _see_first(self) -> bool:
        """Return whether the first has ended; raise when it is gone."""
        if self._pulse.silent([0]):
            raise self._gone(0)
        return self._store.look("end") is not None

    def _fault(self, rank: int, fault: dict[str, Any]) -> Exception:
        where = f"on {self._hosts[rank]} (rank {rank})"
        if fault["message"]:
            return UserError(f"{where}: {fault['message']}")
        return StageError(fault["stage"], f"{where} ended with code {fault['code']}, see what it says there; {AGAIN}")

    def _gone(self, rank: int) -> StageError:
        words = f"{self._hosts[rank]} (rank {rank}) has shown no life for {SILENT_SECONDS:.0f} seconds, or is out of reach"
        return StageError("compactlm join", f"{words}; {AGAIN}")

    def _tell_end(self, code: int) -> None:
        """Tell the others, and give them the time to hear it: the store may end with this process."""
        with contextlib.suppress(RuntimeError):
            self._store.put("end", code)
            others = range(1, self._group.count)
            self._wait(lambda: all(self._store.look(f"left/{rank}") for rank in others), LEAVE_SECONDS)

    def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)


def _environment(group: Group, names: dict[str, str]) -> dict[str, str]:
    """Return ours without torch's names, which stages that do not train would take for a group of their own."""
    left_out = {*NEEDED, *group.names(), children.WARM}
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **names}
