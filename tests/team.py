"""A team from nothing: servers, a schedule of a branch, a worker and a reader in clones of their own; then all is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from tests.tiny_project import ROOT, Project, environment

COMMAND = [sys.executable, "-c", "from tasks.cli.app import main; main()"]
POOLS = "{teacher: gpu, distill: gpu}"
GATES = "[{metric: accuracy, set: test, versus: champion, max_drop: 1.0}, {check: lineage}]"
Env = Mapping[str, str]


class Team:
    """Clones of one project, and what runs for them; everything can be killed at once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stack = folder, folder / "stack"
        self.seconds: dict[str, float] = {}
        self._children: list[subprocess.Popen[str]] = []

    def role(self, name: str) -> Env:
        """Return the environment of whoever has sourced the file of a role."""
        lines = (self.stack / f"{name}.env").read_text().splitlines()
        pairs = [line.removeprefix("export ").partition("=") for line in lines]
        return {**environment(), "PYTHONPATH": str(ROOT), **{key: value.strip("'") for key, _, value in pairs}}

    def start(self, name: str, command: list[str], env: Env, cwd: Path) -> IO[str]:
        """Start what stays; return what it prints."""
        with (self.folder / f"{name}.log").open("a") as log:
            child = subprocess.Popen(
                command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self._children.append(child)
        assert child.stdout is not None
        return child.stdout

    def start_servers(self) -> None:
        """Bring the servers up, and wait until they answer."""
        with self.timed("servers up"):
            said = self.start(
                "stack",
                [sys.executable, "-m", "infra.stack", str(self.stack), "--project=tiny"],
                {**environment(), "PYTHONPATH": str(ROOT)},
                ROOT,
            )
            while "Ctrl-C" not in (line := said.readline()):
                assert line, (self.folder / "stack.log").read_text()

    def start_work(self, home: Path, worker: Path) -> None:
        """Start the schedule in one clone and a worker in another, and wait until both say that they are there."""
        with self.timed("schedule and worker up"):
            words = ["schedule", "--ref", "origin/main", "--name", "nightly", "--cron", "0 0 1 1 *", "--json"]
            schedule = self.start("schedule", [*COMMAND, *words], self.role("runner"), home)
            work = self.start("worker", [*COMMAND, "worker", "gpu", "--json"], self.role("runner"), worker)
            for said in (schedule, work):
                while (line := said.readline()).rstrip() != "}":
                    assert line, [path.read_text() for path in self.folder.glob("*.log")]

    def call(self, role: str, cwd: Path, *words: str) -> tuple[int, Any]:
        """Return exit code and answer of a command of somebody in a role."""
        done = subprocess.run(
            [*COMMAND, *words, "--json"], cwd=cwd, env=self.role(role), capture_output=True, text=True, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def trigger(self, home: Path) -> dict[str, Any]:
        """Return how a run of the schedule that is started now ends."""
        end = time.monotonic() + 60
        while True:  # a deployment is there once its process has told the server
            code, answer = self.call("runner", home, "schedules", "--trigger", "nightly", "--wait")
            if code != 2 or time.monotonic() > end:
                assert code == 0, answer.get("ended") or answer
                return dict(answer["ended"])

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Keep how long something took."""
        began = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - began, 1)

    def kill_all(self) -> None:
        """Kill everything that was started, and all that it has started, with no word before."""
        running, self._children = self._children, []
        for child in running:
            family = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
            for process in reversed(family):  # so that each is taken note of by its parent, whatever process 1 does here
                with suppress(psutil.NoSuchProcess):  # a child of it that went was its end
                    process.kill()
                psutil.wait_procs([process], timeout=5)
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def clones(team: Team, project: Project) -> dict[str, Path]:
    """Return clones of a project whose remotes are those of the team: of an author, the schedule, a worker, a reader."""
    author = project.copy(team.folder / "author")
    author.set(f"runtime.pools={POOLS}", "promotion.remote=origin", f"promotion.gates={GATES}")
    author.dvc("remote", "add", "-q", "--default", "team", str(team.stack / "dvc"))
    author.shell("git", "add", "-A")
    author.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "for a team")
    author.shell("git", "clone", "-q", "--bare", str(author.folder), str(team.folder / "remote.git"))
    for name in ("home", "worker", "reader"):
        author.shell("git", "clone", "-q", str(team.folder / "remote.git"), str(team.folder / name))
    return {name: team.folder / name for name in ("author", "home", "worker", "reader")}


def go_through(team: Team, project: Project) -> dict[str, float]:
    """Return what took how many seconds, from no server to a promoted and audited model, and then after everything was killed.

    AssertionError where one of them is not as it has to be.
    """
    team.start_servers()
    at = clones(team, project)
    team.start_work(at["home"], at["worker"])
    with team.timed("run of all stages"):
        ended = team.trigger(at["home"])
    assert ended["state"] == "Completed", ended
    receipts = {path.stem for path in at["worker"].glob(".compactlm/worker/*/artifacts/receipts/distill@*.json")}
    assert receipts == {"distill@r1", "distill@r2", "distill@r3"}
    assert not (at["home"] / "artifacts").exists()
    assert not (at["worker"] / ".compactlm/mlflow").exists()

    subprocess.run(["git", "fetch", "-q"], cwd=at["reader"], check=True, env=environment())
    with team.timed("audit by a reader"):
        code, report = team.call("reader", at["reader"], "audit", "tiny@champion")
    assert report["counts"]["FAIL"] == 0, [check for check in report["checks"] if check["result"] == "FAIL"]
    assert code in (0, 3)
    code, decided = team.call("promoter", at["reader"], "promote", "1")
    assert (code, decided["outcome"]) == (0, "done"), decided

    with team.timed("tick with nothing new"):
        assert team.trigger(at["home"])["state"] == "NoChange"
    team.kill_all()
    team.start_servers()
    team.start_work(at["home"], at["worker"])
    with team.timed("tick after kill -9"):
        assert team.trigger(at["home"])["state"] == "NoChange"
    code, history = team.call("reader", at["reader"], "history", "--check")
    assert (code, history["differences"]) == (0, [])
    return team.seconds


@contextmanager
def a_team() -> Iterator[Team]:
    """Give a team in a folder that PostgreSQL's own user can enter; what runs for it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="compactlm-team-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        made = Team(Path(name))
        try:
            yield made
        finally:
            made.kill_all()
