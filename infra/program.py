"""Runs a program, as another user where root may not run it: `python -m infra.program USER PROGRAM ARGUMENTS`.

`tasks.children` starts Python modules alone, and ends them by SIGINT to their group: this one passes its time until its program
has ended by it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def as_user(user: str) -> dict[str, object]:
    """Return what `subprocess` takes to run something as `user`; nothing where that is who we are, or for an empty name."""
    if not user or os.geteuid() != 0:
        return {}
    return {"user": user, "group": user, "extra_groups": []}


def main() -> None:
    """Run the program and end with its exit code."""
    user, *command = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the program's to obey
    child = subprocess.Popen(command, preexec_fn=_heed, **as_user(user))  # type: ignore[call-overload]
    sys.exit(child.wait())


def _heed() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
