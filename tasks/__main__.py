"""`python -m tasks STAGE`: how dvc.yaml runs a stage."""

from __future__ import annotations

import os
import sys
import time

from tasks.children import STARTED
from tasks.warm import run_warm

os.environ.setdefault(STARTED, str(time.time()))
code = run_warm(sys.argv[1:])
if code is None:
    from tasks.running.stage import main

    code = main(sys.argv[1:])
sys.exit(code)
