"""`python -m tasks.running.slurm OPTIONS -- COMMAND`: a command as a job of Slurm, waited for, and cancelled with this process.

It is what a Prefect pool of processes starts on the login node of a cluster. The job has our environment, works in the
clone of the worker, which a shared disk brings to its node, and its exit code is ours.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from tasks.errors import EXIT_USER_ERROR, UserError
from tasks.progress import say

LOGS: Final = Path(".compactlm") / "slurm"  # below the worker's clone, one a job: what Prefect does not show
ALONE: Final = "PREFECT__CONTROL_"  # a way to the worker that is of its machine alone


def command_of(options: str) -> str:
    """Return the command of a pool whose stages are jobs of Slurm with these options of sbatch; UserError without sbatch."""
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch on the PATH; start the worker on a machine that may submit to Slurm")
    engine = [sys.executable, "-m", "prefect.engine"]
    return shlex.join([sys.executable, "-m", "tasks.running.slurm", *shlex.split(options), "--", *engine])


def submit_and_wait(options: Sequence[str], command: Sequence[str], folder: Path) -> int:
    """Return the exit code of a job; it is cancelled when this process is told to end."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    fixed = ["--wait", "--parsable", "--export=ALL", f"--chdir={folder}", f"--output={folder / LOGS}/%j.log"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(ALONE)}
    words = ["sbatch", *fixed, *options, "--wrap", f"exec {shlex.join(command)}"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        job = child.stdout.readline().strip().partition(";")[0]

        def cancel(number: int, _frame: object) -> NoReturn:
            if job:
                subprocess.run(["scancel", job], check=False)
            child.kill()
            sys.exit(128 + number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, cancel)
        if job:
            say(f"job {job} of Slurm; what it prints: {folder / LOGS}/{job}.log")
        return child.wait()


def main(argv: Sequence[str], folder: Path) -> int:
    """Run the command after `--` with the options before it."""
    if "--" not in argv:
        say("usage: python -m tasks.running.slurm OPTIONS OF SBATCH -- COMMAND")
        return EXIT_USER_ERROR
    place = list(argv).index("--")
    return submit_and_wait(argv[:place], argv[place + 1 :], folder)


if __name__ == "__main__":
    from tasks.running.pooled import HOME

    sys.exit(main(sys.argv[1:], Path(os.environ.get(HOME) or Path.cwd())))
