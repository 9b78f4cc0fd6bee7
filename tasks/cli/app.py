"""`compactlm`: run the pipeline, see what it made, decide what is served. Every command stands here with an example."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, NoReturn

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from tasks.cli.alerts import alerts
from tasks.cli.approvals import approve, reject
from tasks.cli.check import check
from tasks.cli.console import answers, answers_alone, err, print_json, shown
from tasks.cli.doctor import doctor
from tasks.cli.export import export
from tasks.cli.init import init
from tasks.cli.join import join
from tasks.cli.keep import backup, gc, merge_lock, restore
from tasks.cli.lineage import audit, diff, lineage, publish
from tasks.cli.predict import predict
from tasks.cli.promotion import compare, gate, history, promote, rollback
from tasks.cli.push import push
from tasks.cli.run import run, undo
from tasks.cli.schedule import schedule, schedules, worker
from tasks.cli.serve import ServeCommand, serve, ui
from tasks.cli.shapes import measure, shapes
from tasks.cli.show import models, report, status
from tasks.cli.watch import watch
from tasks.errors import (
    EXIT_INTERRUPTED,
    EXIT_STAGE_ERROR,
    EXIT_USER_ERROR,
    TRACE,
    CompactlmError,
    UserError,
    explained,
    outside_errors,
    without_passwords,
)
from tasks.running.servers import settle_credentials

COMMANDS: Final[dict[Callable[..., None], str]] = {
    init: "compactlm init reviews.csv --ratio 5",
    gate: "compactlm gate compactlm-sentiment@challenger",
    promote: "compactlm promote compactlm-sentiment/2",
    approve: "compactlm approve compactlm-sentiment@challenger --key ~/.ssh/id_ed25519",
    reject: 'compactlm reject compactlm-sentiment/2 --reason "slow on long texts"',
    rollback: 'compactlm rollback --reason "too many wrong refunds"',
    history: "compactlm history --check",
    watch: "compactlm watch --port 8765",
    alerts: "compactlm alerts --webhook https://hooks.example.org/compactlm --email team@example.org",
    compare: "compactlm compare champion challenger",
    audit: "compactlm audit compactlm-sentiment@champion --html audit.html",
    lineage: "compactlm lineage --down artifacts/data/sets/train.parquet",
    publish: "compactlm publish --rebuild",
    backup: "compactlm backup /mnt/backup/reviews",
    restore: "compactlm restore /mnt/backup/reviews",
    gc: "compactlm gc --keep 5 --yes",
    merge_lock: "compactlm merge-lock BASE OURS THEIRS dvc.lock",
    diff: "compactlm diff compactlm-sentiment/1 compactlm-sentiment/2",
    export: "compactlm export compactlm-sentiment@champion --out exported --key signer.pem",
    push: "compactlm push champion pushed --license Apache-2.0",
    shapes: "compactlm shapes --json",
    measure: "compactlm measure r3",
    predict: "compactlm predict champion reviews.csv --out answers.csv",
    doctor: "compactlm doctor --json",
    check: "compactlm check --set data.source=path:rows.csv",
    run: "compactlm run --set rounds.r3.layers=2",
    undo: "compactlm undo",
    join: "compactlm join compactlm run --workers 2",
    status: "compactlm status --json",
    models: "compactlm models --json",
    report: "compactlm report --open",
    schedule: 'compactlm schedule --cron "0 2 * * *" --ref origin/main --name nightly',
    schedules: "compactlm schedules --trigger nightly",
    worker: "compactlm worker gpu --limit 2",
    serve: "compactlm serve champion --port 8080",
    ui: "compactlm ui",
}

HIDDEN: Final = (merge_lock,)  # Git calls it
OF_ITS_OWN: Final = {serve: ServeCommand}  # a command that means another one by some of its words

app = typer.Typer(
    name="compactlm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Make a language model smaller, and prove what was made.",
)
for command, example in COMMANDS.items():
    # what follows the command that `join` is to run is that command's
    parsed = {"allow_interspersed_args": False} if command is join else {}
    kind = OF_ITS_OWN.get(command, TyperCommand)
    app.command(epilog=f"Example: {example}", hidden=command in HIDDEN, cls=kind, context_settings=parsed)(command)


def main() -> None:
    """Run the command line; exit code 0, 1 (a stage failed), 2 (the user can mend it), 3 or 4 (see `run`) or 130
    (interrupted)."""
    answers.clear()
    settle_credentials(os.environ)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with answers_alone() if "--json" in sys.argv else nullcontext():
            ended = app(standalone_mode=False)
        if ended == EXIT_INTERRUPTED:  # what Typer makes of Ctrl-C
            raise KeyboardInterrupt
    except CompactlmError as error:
        is_theirs = isinstance(error, UserError)
        _end("error" if is_theirs else "failed", str(error), EXIT_USER_ERROR if is_theirs else EXIT_STAGE_ERROR)
    except TyperException as error:
        _end("error", f"{error.format_message()}; see `compactlm --help`", EXIT_USER_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        again = "compactlm run` goes on where this stopped" if sys.argv[1:2] == ["run"] else f"{_command()}` starts it again"
        _end("interrupted", f"`{again}", EXIT_INTERRUPTED)
    except BrokenPipeError:  # who reads us has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_STAGE_ERROR)
    except outside_errors() as error:
        if os.environ.get(TRACE):
            raise
        _end("error", explained(error), EXIT_USER_ERROR)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(0)


def _interrupt(*_: object) -> None:
    """End on SIGTERM as on Ctrl-C: children are ended, locks given back."""
    raise KeyboardInterrupt


def _command() -> str:
    return shlex.join(["compactlm", *sys.argv[1:]])


def _end(kind: str, sentence: str, code: int) -> NoReturn:
    """Say why this ends, for programs too if they have no answer yet, and exit."""
    sentence = without_passwords(sentence)
    err.print(shown(f"{kind}: {sentence}", kept="\n\t"))
    if "--json" in sys.argv and not answers:
        print_json({"error": sentence, "exit_code": code})
    sys.exit(code)
