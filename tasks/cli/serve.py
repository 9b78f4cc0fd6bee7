"""The commands that stay until Ctrl-C: a model behind HTTP, the pages of Prefect and MLflow, the former name of `schedule`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tasks.cli.console import Json, err, out, print_json, show
from tasks.cli.predict import Model
from tasks.cli.project import find_project, params_of
from tasks.cli.schedule import NIGHTLY, Audits, Cron, Overlap, Zone, schedule
from tasks.errors import ParamsError

ROWS, BYTES = 1_000, 1_000_000  # that one request may have


def serve(
    model: Model,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    onnx: Annotated[
        bool | None, typer.Option("--onnx/--int8", help="Run its ONNX file, as without an option, or the int8 one.")
    ] = None,
    torch: Annotated[bool, typer.Option("--torch", help="Run its weights by torch, on a GPU where there is one.")] = False,
    limits: Annotated[
        tuple[int, int], typer.Option(metavar="ROWS BYTES", help="Refuse a request with more rows, or a longer body.")
    ] = (ROWS, BYTES),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for programs when it is ready.")] = False,
) -> None:
    """Serve a classifier over HTTP until Ctrl-C, as `mlflow models serve` does: POST /invocations, GET /ping.

    It answers {"inputs": ["a text"]} with {"predictions": [{"label": ..., "score": ...}]}, as `compactlm predict` would.
    There are no passwords: whoever reaches the address may ask.
    """
    started = time.perf_counter()
    from tasks.files import file_sha256
    from tasks.using.model import INT8, ONNX, TORCH, find_model
    from tasks.using.protocol import Limits

    if torch and onnx is not None:
        raise ParamsError(f"--torch --{'onnx' if onnx else 'int8'}: one of them runs the model; leave the other out")
    if min(limits) < 1:
        raise ParamsError(f"--limits {limits[0]} {limits[1]}: rows and bytes are whole numbers from 1 on, such as {ROWS} {BYTES}")
    form = TORCH if torch else INT8 if onnx is False else ONNX
    found = find_model(model, Path.cwd())
    file = found.file(form) or found.folder / "model.safetensors"
    from tasks.using.server import Service, address_of, listening, serve_until_interrupted

    with listening(host, port) as listener:
        if form == TORCH:
            from tasks.using.answers import load
        else:
            from tasks.using.session import load_light as load
        classifier = load(found, form)
        facts: dict[str, Any] = {"address": address_of(listener), "model": found.words, "version": found.version, "form": form}
        facts |= {"sha256": file_sha256(file) if file.is_file() else None, "labels": classifier.labels}
        facts |= {"max_tokens": classifier.longest, "max_rows": limits[0], "max_bytes": limits[1]}
        if as_json:
            print_json(facts, indent=None)
        else:
            seconds = time.perf_counter() - started
            out.print(f"{found.words} ({form}) answers at {facts['address']}/invocations, after {seconds:.1f} s; Ctrl-C ends it")
            sys.stdout.flush()
        serve_until_interrupted(Service(classifier, Limits(*limits), found.column), listener)


def former_serve(
    cron: Cron = NIGHTLY, overlap: Overlap = "skip", audit_cron: Audits = None, timezone: Zone = "UTC", as_json: Json = False
) -> None:
    """Run on a schedule: the former name of `compactlm schedule`, which also runs a branch of a remote."""
    find_project()
    err.print("`compactlm serve` without a model is `compactlm schedule` now; this name will go")
    schedule(cron=cron, overlap=overlap, audit_cron=audit_cron, timezone=timezone, as_json=as_json)


_former = typer.Typer(add_completion=False, rich_markup_mode=None)
_former.command()(former_serve)


class ServeCommand(TyperCommand):
    """`serve MODEL`; without MODEL, or with an option that only schedules have, its former meaning, which no help shows."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command that is meant, and so the command that is run."""
        former = typer.main.get_command(_former)
        of_schedules = {name for each in former.params for name in each.opts} - {"--json", "--help"}
        if set(args) <= {"--json"} or of_schedules.intersection(word.partition("=")[0] for word in args):
            return former.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def ui(as_json: Json = False) -> None:
    """Open the pages of Prefect and MLflow over this workspace's records until Ctrl-C."""
    from flows.server import configure, mlflow_page, prefect_server
    from tasks.registry.tracking import Tracker

    workspace = find_project()
    params_of(workspace)
    configure(workspace)
    with prefect_server() as prefect, mlflow_page(Tracker(workspace).uri) as mlflow:
        facts = {"prefect": prefect, "mlflow": mlflow}
        show(facts, as_json, f"Prefect: {prefect}", f"MLflow:  {mlflow}", "Ctrl-C ends both")
        sys.stdout.flush()
        while True:
            time.sleep(3600)
