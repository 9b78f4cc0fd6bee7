"""Stages on other machines: a run here, a worker in another clone with another cache, and a Prefect server between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.server import API, prefect_server
from tasks.errors import UserError
from tasks.params.file import apply_overrides, load_params
from tasks.running.check import look
from tasks.running.dvc import push, read_graph
from tasks.running.pooled import HOME, REFS, Offer, git_remote, pool_faults, queue_of, run_handed_over
from tests.integration.conftest import shell
from tests.integration.test_serve import wait_for

ROOT = Path(__file__).resolve().parents[2]
WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")
POOLS = "{distill@r2: gpu, evaluate@r2: gpu}"
COMMAND = [sys.executable, "-c", "from tasks.cli.app import main; main()"]


@pytest.fixture
def here(built: Path) -> Path:
    """The clone of a run whose second round is to be made anew; its remotes are beside it."""
    folder, params = built.parent, built / "params.yaml"
    changes = [f"runtime.pools={POOLS}", "distill.temperature=3.0"]
    params.write_text(apply_overrides(params.read_text(), changes, params.name))
    shell(built, sys.executable, "-m", "dvc", "remote", "add", "-q", "--default", "shelf", str(folder / "shelf"))
    shell(built, "git", "add", "-A")
    shell(built, "git", *WHO, "commit", "-qm", "results")
    shell(folder, "git", "clone", "-q", "--bare", str(built), "remote.git")
    shell(built, "git", "remote", "add", "origin", str(folder / "remote.git"))
    return built


@pytest.fixture
def there(here: Path) -> Path:
    """The clone of a worker, with a cache of its own that has nothing."""
    shell(here.parent, "git", "clone", "-q", "remote.git", "there")
    return here.parent / "there"


def test_a_stage_is_handed_over_and_its_files_come_back(here: Path, there: Path) -> None:
    from tasks.running.dvc import restore
    from tasks.running.pooled import hand_over, lock_text

    stage = next(stage for stage in read_graph(here) if stage.name == "distill@r2")
    assert not restore(here, stage.name)
    offer = Offer(here)
    commit = offer.commit()
    hand_over(here, stage)
    assert run_handed_over(there, stage.name, commit, lock_text(here), print) == "executed"
    assert run_handed_over(there, stage.name, commit, lock_text(here), print) == "restored"
    assert restore(here, stage.name)
    receipts = [
        *there.glob(".compactlm/worker/*/artifacts/receipts/distill@r2.json"),
        here / "artifacts/receipts/distill@r2.json",
    ]
    assert len({path.read_bytes() for path in receipts}) == 1
    assert len(receipts) == 2
    assert shell(here, "git", "ls-remote", "origin", f"{REFS}/*").split() == [commit, f"{REFS}/{commit}"]
    offer.close()
    assert shell(here, "git", "ls-remote", "origin", f"{REFS}/*") == ""
    assert queue_of(here) == queue_of(there)


@pytest.mark.slow
def test_files_are_handed_over_while_another_stage_holds_dvc(here: Path) -> None:
    from dvc.repo import Repo

    with ThreadPoolExecutor(1) as beside, Repo(str(here)) as repo:
        with repo.lock:
            pushed = beside.submit(push, here, ["prune@r2"])
            with pytest.raises(TimeoutError):
                pushed.result(timeout=15)  # by itself DVC tries for five seconds
        assert pushed.result(timeout=120) == ""
    assert any((here.parent / "shelf").rglob("*"))


def test_edits_that_a_worker_would_not_see_are_refused(here: Path) -> None:
    (here / "params.yaml").write_text((here / "params.yaml").read_text() + "\n")
    with pytest.raises(UserError, match="edited files would not be seen by a worker"):
        Offer(here).commit()


def test_what_a_run_with_pools_lacks_is_said_at_once(here: Path) -> None:
    runtime = load_params(here / "params.yaml").runtime
    shell(here, "git", "remote", "remove", "origin")
    shell(here, sys.executable, "-m", "dvc", "remote", "remove", "-q", "shelf")
    found = pool_faults(here, runtime, {})
    assert [next(word for word in ("PREFECT_API_URL", "Git remote", "DVC remote") if word in line) for line in found] == [
        "PREFECT_API_URL",
        "Git remote",
        "DVC remote",
    ]
    lines = look(here, (here / "params.yaml").read_text()).faults.lines
    assert [line for line in found[1:] if line not in lines] == []
    assert pool_faults(here, runtime.model_copy(update={"pools": None}), {}) == []
    assert git_remote(here) is None


def test_stages_that_are_too_light_for_the_way_are_refused(here: Path) -> None:
    text = (here / "params.yaml").read_text().replace(POOLS, "{prune: gpu, report: gpu}")
    assert any("runtime.pools: prune, report: allowed are teacher," in line for line in look(here, text).faults.lines)


# The rest by a real server and real workers.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(API, raising=False)
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with prefect_server() as url:
            yield f"{url}/api"


def environment(server: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", HOME))}
    return {**kept, API: server, "PYTHONPATH": str(ROOT)}


@contextmanager
def working(folder: Path, server: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*COMMAND, "worker", "gpu", *words], cwd=folder, env=environment(server)) as child:
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def run(folder: Path, server: str) -> dict[str, Any]:
    """Return what a run says, which must have gone well."""
    done = subprocess.run(
        [*COMMAND, "run", "--commit", "--json"], cwd=folder, env=environment(server), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "lines": done.stderr}


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    found = what()
    return time.monotonic() - began, found


@pytest.mark.slow
def test_a_run_gives_stages_to_a_worker_and_goes_on_with_what_comes_back(here: Path, there: Path, server: str) -> None:
    with working(there, server):
        _wait_for_worker(server)
        record = run(here, server)
    states = {row["name"]: row["state"] for row in record["stages"] if row["state"] != "skipped"}
    assert states["distill@r2"] == "executed"
    assert "distill@r2: goes to the pool gpu" in record["lines"]
    assert "small stage distill@r2" in record["lines"]  # as the worker said it
    assert [path.name for path in (there / ".compactlm/worker").glob("*/artifacts/receipts/distill@r2.json")] == [
        "distill@r2.json"
    ]
    assert not (there / ".compactlm/mlflow").exists()
    second = run(here, server)  # no worker is there, and nothing has to run
    assert second["state"] == "no change"


def misbehave(there: Path, how: str) -> Path:
    """Have a stage go wrong at the worker; return the file that says so."""
    tree = there / ".compactlm/worker/0"
    tree.mkdir(parents=True)
    shell(there, "git", "worktree", "add", "-q", "--detach", "--force", str(tree), "HEAD")
    exclude = Path(shell(there, "git", "rev-parse", "--path-format=absolute", "--git-path", "info/exclude").strip())
    exclude.write_text("misbehave.json\n")
    (tree / "misbehave.json").write_text(json.dumps({"stage": "distill@r2", "how": how}))
    return tree / "misbehave.json"


@pytest.mark.slow
def test_what_a_worker_refuses_is_told_by_the_run(here: Path, there: Path, server: str) -> None:
    plan = misbehave(there, "refuse")
    with working(there, server):
        _wait_for_worker(server)
        done = subprocess.run(
            [*COMMAND, "run", "--commit"], cwd=here, env=environment(server), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert "distill@r2: on a worker of gpu: " in done.stderr
        plan.unlink()
        assert run(here, server)["state"] == "completed"


@pytest.mark.slow
def test_a_stage_that_is_killed_is_given_out_again(here: Path, there: Path, server: str) -> None:
    plan = misbehave(there, "wait")
    with working(there, server) as worker:
        _wait_for_worker(server)
        command = [*COMMAND, "run", "--commit", "--json"]
        with subprocess.Popen(
            command, cwd=here, env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as asked:
            held = plan.with_name("waiting")
            wait_for(held.exists)
            above = psutil.Process(int(held.read_text())).parents()
            own = {worker.pid, *(process.pid for process in psutil.Process(worker.pid).children())}
            engine = next(process for process in above if process.ppid() in own and process.pid not in own)
            plan.unlink()
            engine.kill()
            said, told = asked.communicate(timeout=300)
        assert asked.returncode == 0, told
    states = {row["name"]: row["state"] for row in json.loads(said)["stages"]}
    assert states["distill@r2"] == "executed"
    assert told.count(b"distill@r2: goes to the pool gpu") == 2


def _wait_for_worker(server: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:

        def there() -> bool:
            try:
                answer = client._client.post("/work_pools/gpu/workers/filter", json={})
            except PrefectHTTPStatusError:  # there is no such pool yet
                return False
            return bool(answer.json())

        wait_for(there)
