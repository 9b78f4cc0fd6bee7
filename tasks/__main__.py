"""`python -m tasks STAGE`: how dvc.yaml runs a stage."""

from __future__ import annotations

import os
import sys
import time
import traceback

from tasks.children import MEETING, STARTED
from tasks.warm import run_warm

os.environ.setdefault(STARTED, str(time.time()))
code = run_warm(sys.argv[1:])
if code is None:
    from tasks.running.stage import main

    try:
        code = main(sys.argv[1:])
    finally:
        if MEETING in os.environ:  # one of a group, which ends with its processes: see `Processes.end_others`
            if code is None:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1 if code is None else code)
sys.exit(code)
