"""`python -m tasks STAGE`: how dvc.yaml runs a stage."""

from __future__ import annotations

import sys

from tasks.stage import main

sys.exit(main(sys.argv[1:]))
