"""The command that looks at everything around a project and says what is wrong with it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tasks.cli.console import Json, err, out, print_json
from tasks.files import project_of

EXIT_WRONG = 1


def doctor(as_json: Json = False) -> None:
    """Look at this machine, the project and each server that it names, within 5 seconds; nothing is changed.

    Each line says fine, warning or wrong, and what to do. Exit code 1 if anything is wrong.
    """
    from tasks.running.machine import ask_torch

    started = time.monotonic()
    found = []
    with ask_torch() as torch:  # which loads while the rest is looked at
        from tasks.running.doctor import examine

        for finding in examine(project_of(Path.cwd()), os.environ, torch, started):
            found.append(finding)
            if not as_json:
                out.print(f"{finding.state:<8} {finding.about}: {finding.says}")
                if finding.do:
                    out.print(f"{'':<8}   {finding.do}")
    wrong, warnings = (sum(finding.state == state for finding in found) for state in ("wrong", "warning"))
    seconds = time.monotonic() - started
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found], "wrong": wrong, "warnings": warnings})
    else:
        err.print(f"{wrong or 'nothing'} wrong, {warnings or 'no'} warning{'' if warnings == 1 else 's'} ({seconds:.1f} s)")
    if wrong:
        sys.exit(EXIT_WRONG)
