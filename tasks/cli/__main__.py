"""`python -m tasks.cli`: the command line of the code in the current folder, whichever is installed."""

from __future__ import annotations

from tasks.cli.app import main

main()
