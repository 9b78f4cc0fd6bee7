"""Runs one stage: arguments from the function's signature, params checked whole, a receipt of what happened.

A stage is a module of `tasks.stages` with `run(params, ...) -> facts`. Its keyword arguments are annotated `InPath`, `OutPath` or
`str` and become `--flags`; paths come from dvc.yaml alone. A stage may have `check(params, ...)`, which is asked first and sees
all params. The receipt lists the digests of every input and output.
"""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

from tasks import children
from tasks.errors import (
    EXIT_INTERRUPTED,
    EXIT_STAGE_ERROR,
    EXIT_USER_ERROR,
    TRACE,
    ResourceError,
    StageError,
    UserError,
    explained,
    outside_errors,
)
from tasks.files import write_json
from tasks.lineage.begun import begin
from tasks.lineage.loaded import AT_IMPORT, Code
from tasks.lineage.receipts import Execution, collect_receipt
from tasks.progress import say
from tasks.running.launch import TRAINING, in_several, launch
from tasks.running.meet import is_bystander, leave_group, lost, meet, refuse_idle_others

InPath = Annotated[Path, "input"]
OutPath = Annotated[Path, "output"]

STAGES: Final = (
    "fetch",
    "validate_data",
    "prepare",
    "teacher",
    "teacher_logits",
    "baselines",
    "prune",
    "trial",
    "finish",
    "distill",
    "random_init",
    "export",
    "evaluate",
    "gate",
    "select",
    "report",
)
FULL_DISK_WORDS: Final = re.compile(
    r"No space left on device|StorageFull|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|"
    r"\d+ requested and \d+ written|Not enough free space to write"
)

Run = Callable[..., dict[str, Any]]


def main(argv: Sequence[str], since: Code = AT_IMPORT) -> int:
    """Run the stage named by argv and return its exit code: 0, 1 (its fault), 2 (the user can mend it) or 130.

    `since`: the code on disk when this process began to load it.
    """
    started = time.time()
    try:
        return _work(argv, started, since)
    except UserError as error:
        return _refuse(argv, error)
    except KeyboardInterrupt:  # who interrupts it says how to go on
        return EXIT_INTERRUPTED
    except StageError as error:  # of one of several processes, which has said more
        say(f"error: {error}")
        return EXIT_STAGE_ERROR
    except SystemExit as ended:  # of a group that others started, all but the first end when the training has
        if children.MEETING not in os.environ:
            raise
        return int(ended.code or 0)


def _work(argv: Sequence[str], started: float, since: Code) -> int:
    """Do what `main` does, and raise its refusals."""
    try:
        return _main(argv, started, since)
    except Exception as error:
        if (gone := lost(error, os.environ.get("DVC_STAGE", argv[0]))) is not None:
            raise gone from None
        if not _disk_is_full(error):
            if isinstance(error, outside_errors()) and not os.environ.get(TRACE):
                raise UserError(explained(error)) from None
            raise
        place = getattr(error, "filename", None) or "disk"
        raise ResourceError(f"{place}: no space left on the device; free some and run again") from None


def _disk_is_full(error: Exception) -> bool:
    """Return whether a write failed for want of space; safetensors, torch and numpy tell it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FULL_DISK_WORDS.search(str(error)) is not None


def _main(argv: Sequence[str], started: float, since: Code) -> int:
    if not argv or argv[0] not in STAGES:
        wanted = argv and argv[0] not in ("-h", "--help")
        say(f"usage: python -m tasks STAGE --help\nstages: {', '.join(STAGES)}")
        return EXIT_USER_ERROR if wanted or not argv else 0
    if is_bystander(argv[0], os.environ):
        return 0
    run, roles = stage_function(argv[0])
    options = _parser(argv[0], run).parse_args(argv[1:])
    paths = {name: role for name, role in roles.items() if getattr(options, name) is not None}
    inputs, outputs = ([getattr(options, name) for name in paths if paths[name] == role] for role in ("input", "output"))
    begun = begin(_stage_of(options), options.params, inputs, since)
    params = begun.params
    launcher = params.runtime.launcher
    if launcher is not None and in_several(argv[0], launcher):
        # each of them comes back to this place, and goes on from it
        launch(os.environ.get("DVC_STAGE", argv[0]), launcher, functools.partial(_work, argv, started, since))
        return 0
    if argv[0] not in TRAINING:
        leave_group(os.environ)
    elif launcher is not None and launcher.external:
        meet(argv, launcher, begun, inputs)
    else:
        refuse_idle_others(os.environ)
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    arguments = {name: getattr(options, name) for name in _keywords(run)}
    if check := getattr(
        sys.modules[run.__module__], "check", None
    ):  # of the whole params: what later stages would refuse is no reason to run again
        check(params, **{name: arguments[name] for name in inspect.signature(check).parameters if name in arguments})
    began = time.time()
    facts = run(begun.seen, **arguments)
    ended = time.time()
    if options.receipt is not None:
        done = Execution(
            stage=os.environ.get("DVC_STAGE", argv[0]),
            command=list(argv),
            inputs=inputs,
            outputs=outputs,
            code=begun.loaded_code(),
            git=begun.git,
            started=began,
            startup_seconds=began - _process_start(started),
            compute_seconds=ended - began,
        )
        write_json(options.receipt, collect_receipt(done, params, facts))
    begun.refuse_changes()  # the last thing: DVC takes its digests when this process has ended
    if options.json:
        json.dump(facts, sys.stdout, indent=1, sort_keys=True)
    return 0


def _stage_of(options: argparse.Namespace) -> str:
    """Return the name in dvc.yaml of the stage that runs: DVC tells it, and by hand the path of the receipt does."""
    return os.environ.get("DVC_STAGE") or (options.receipt.stem if options.receipt is not None else "")


def _refuse(argv: Sequence[str], error: UserError) -> int:
    say(f"error: {error}")
    place = os.environ.get(children.ERROR_FILE)
    if place:
        words = {"stage": os.environ.get("DVC_STAGE", argv[0]), "kind": type(error).__name__, "message": str(error)}
        Path(place).write_text(json.dumps(words), encoding="utf-8")
    return EXIT_USER_ERROR


def _process_start(fallback: float) -> float:
    """Return the wall-clock time at which this process's command began, if its launcher told, else `fallback`."""
    return float(os.environ.get(children.STARTED, fallback))


def _keywords(run: Run) -> list[str]:
    return [p.name for p in inspect.signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _roles(run: Run) -> dict[str, str]:
    """Return keyword -> `input` or `output` for the arguments of a stage that are paths."""
    hints = get_type_hints(run, include_extras=True)
    found = {}
    for name in _keywords(run):
        for candidate in (hints[name], *get_args(hints[name])):
            metadata = getattr(candidate, "__metadata__", ())
            if metadata:
                found[name] = metadata[0]
    return found


def stage_function(verb: str) -> tuple[Run, dict[str, str]]:
    """Return the function of a stage, and keyword -> `input` or `output` of those of its arguments that are paths."""
    run: Run = importlib.import_module(f"tasks.stages.{verb}").run
    return run, _roles(run)


def _parser(stage: str, run: Run) -> argparse.ArgumentParser:
    roles = _roles(run)
    flags = " ".join(f"--{name.replace('_', '-')} {'PATH' if name in roles else 'NAME'}" for name in _keywords(run))
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks {stage}",
        description=inspect.getdoc(sys.modules[run.__module__]),
        epilog=f"example: python -m tasks {stage} {flags}\ndvc.yaml knows the paths: `dvc repro -s {stage}`",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parameters = inspect.signature(run).parameters
    for name in _keywords(run):
        kind = Path if name in roles else str
        optional = parameters[name].default is not inspect.Parameter.empty
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=not optional, help=roles.get(name, "name"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="description of the run")
    parser.add_argument("--receipt", type=Path, help="where to write the receipt")
    parser.add_argument("--json", action="store_true", help="print the facts of the run as JSON")
    return parser
