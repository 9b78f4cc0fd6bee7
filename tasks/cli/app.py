"""`compactlm`: run the pipeline, see what it made, decide what is served. Every command stands here with an example."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import typer

from tasks.cli.approvals import approve, reject
from tasks.cli.check import check
from tasks.cli.console import err
from tasks.cli.export import export
from tasks.cli.lineage import audit, diff, lineage, publish
from tasks.cli.promotion import compare, gate, history, promote, rollback
from tasks.cli.run import run
from tasks.cli.serve import serve, ui
from tasks.cli.shapes import measure, shapes
from tasks.cli.show import models, report, status
from tasks.cli.watch import watch
from tasks.errors import EXIT_STAGE_ERROR, EXIT_USER_ERROR, CompactlmError, UserError

EXIT_INTERRUPTED: Final = 130
COMMANDS: Final[dict[Callable[..., None], str]] = {
    gate: "compactlm gate compactlm-sentiment@challenger",
    promote: "compactlm promote compactlm-sentiment/2",
    approve: "compactlm approve compactlm-sentiment@challenger --key ~/.ssh/id_ed25519",
    reject: 'compactlm reject compactlm-sentiment/2 --reason "slow on long texts"',
    rollback: 'compactlm rollback --reason "too many wrong refunds"',
    history: "compactlm history --check",
    watch: "compactlm watch --port 8765",
    compare: "compactlm compare champion challenger",
    audit: "compactlm audit compactlm-sentiment@champion --html audit.html",
    lineage: "compactlm lineage --down artifacts/data/sets/train.parquet",
    publish: "compactlm publish --rebuild",
    diff: "compactlm diff compactlm-sentiment/1 compactlm-sentiment/2",
    export: "compactlm export compactlm-sentiment@champion --out exported --key signer.pem",
    shapes: "compactlm shapes --json",
    measure: "compactlm measure r3",
    check: "compactlm check --set data.source=path:rows.csv",
    run: "compactlm run --set rounds.r3.layers=2",
    status: "compactlm status --json",
    models: "compactlm models --json",
    report: "compactlm report --open",
    serve: 'compactlm serve --cron "0 2 * * *"',
    ui: "compactlm ui",
}

app = typer.Typer(
    name="compactlm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Make a language model smaller, and prove what was made.",
)
for command, example in COMMANDS.items():
    app.command(epilog=f"Example: {example}")(command)


def main() -> None:
    """Run the command line; exit code 0, 1 (a stage failed), 2 (the user can mend it) or 130 (interrupted)."""
    try:
        app()
    except UserError as error:
        err.print(f"error: {error}", markup=False)
        sys.exit(EXIT_USER_ERROR)
    except CompactlmError as error:
        err.print(f"failed: {error}", markup=False)
        sys.exit(EXIT_STAGE_ERROR)
    except KeyboardInterrupt:
        err.print("interrupted; `compactlm run` goes on where this stopped")
        sys.exit(EXIT_INTERRUPTED)
