"""Slurm on one node, started by the test: stages of a run as its jobs, and a training over the tasks of srun."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.children import LOOPBACK, free_port
from tasks.errors import UserError
from tasks.files import digest, read_json
from tasks.running.slurm import LOGS, command_of, main
from tests.integration.test_extra_losses_stage import params_of
from tests.integration.test_nodes import assert_told, external, write
from tests.integration.test_pools import _wait_for_worker, here, run, server, there, working  # noqa: F401 - three are fixtures
from tests.integration.trainings import assert_same_training, stage, student_of

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONFIG = """
ClusterName=test
SlurmctldHost={host}({loopback})
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/daemon.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/daemon.log
NodeName={host} NodeAddr={loopback} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of this machine alone, which SLURM_CONF names."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        pytest.skip(f"needs Slurm: {', '.join(missing)} are missing (Debian: slurm-wlm)")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    facts = {"host": host, "loopback": LOOPBACK, "user": getpass.getuser(), "folder": folder}
    (folder / "slurm.conf").write_text(CONFIG.format(controller=free_port(), daemon=free_port(), **facts), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        places = [
            word for name, path in files.items() for word in (f"--{name}-file" if name != "socket" else "--socket", str(path))
        ]
        commands = [
            ["munged", "--foreground", "--force", "--key-file", str(key), *places],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", host],
        ]
        started = []
        try:
            for command in commands:
                started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                time.sleep(1)
            deadline = time.monotonic() + 30
            while "idle" not in subprocess.run(["sinfo"], capture_output=True, text=True, check=False).stdout:
                assert time.monotonic() < deadline, (folder / "controller.log").read_text(encoding="utf-8")
                time.sleep(0.5)
            yield
        finally:
            subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
            for process in reversed(started):
                process.terminate()
                process.wait(30)


def test_without_slurm_a_worker_for_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--slurm: there is no sbatch on the PATH"):
        command_of("--gres=gpu:1")


@pytest.mark.slow
def test_a_command_is_a_job_whose_exit_code_comes_back_and_which_ends_with_us(cluster: None, tmp_path: Path) -> None:
    options = ["--job-name=ours", "--"]
    assert main([*options, sys.executable, "-c", "import os; print(os.environ['SLURM_JOB_NAME']); os._exit(3)"], tmp_path) == 3
    command = [sys.executable, "-m", "tasks.running.slurm", "--job-name=long", "--", "sleep", "600"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}) as child:
        _wait_for_jobs("long", running=True)
        child.terminate()
        assert child.wait(30) == 128 + 15
    _wait_for_jobs("long", running=False)


def _wait_for_jobs(name: str, running: bool) -> None:
    deadline = time.monotonic() + 60
    asked = ["squeue", "--noheader", "--states=R", "--name", name]
    while bool(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()) != running:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_stage_of_a_run_is_a_job(cluster: None, here: Path, there: Path, server: str) -> None:  # noqa: F811
    with working(there, server, "--slurm", "--job-name=stage --time=10"):
        _wait_for_worker(server)
        record = run(here, server)
    states = {row["name"]: row["state"] for row in record["stages"] if row["state"] != "skipped"}
    assert states["distill@r2"] == "executed"
    assert "small stage distill@r2" in record["lines"]
    assert list((there / LOGS).glob("*.log"))  # evaluate@r2 is restored: the model has the same bytes


@pytest.mark.slow
def test_the_tasks_of_srun_train_what_one_process_trains(
    cluster: None, tiny_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = params_of(batch_rows=15)
    paths = student_of(params, tiny_families, tmp_path)
    assert stage(params, "distill", *paths, "--out", "on1") == 0
    write(external(params))
    words = ["distill", *map(str, paths), "--out", "on2", "--receipt", "two.json"]
    command = ["srun", "--ntasks", "2", sys.executable, "-m", "tasks.cli", "join", "python", "-m", "tasks", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_training(Path("on1"), Path("on2"))
    assert_told(read_json(Path("two.json")), "ddp")
    assert digest(Path("on2"))["files"]
