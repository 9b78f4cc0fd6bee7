"""`compactlm`: run the pipeline, see what it made, serve it on a schedule."""

from __future__ import annotations

import json
import logging
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import typer
from rich.table import Table

from tasks.cli import promotion as cli_registry
from tasks.cli.console import Json, RunLines, err, out, print_json
from tasks.cli.export import add_export_command
from tasks.cli.lineage import add_lineage_commands
from tasks.cli.shapes import add_measure_command, add_shapes_command
from tasks.errors import EXIT_STAGE_ERROR, EXIT_USER_ERROR, CompactlmError, UserError
from tasks.params.file import load_params
from tasks.running.last_run import read_last_run, sentence, write_last_run
from tasks.running.start import check_run, find_workspace

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="compactlm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Make a language model smaller, and prove what was made.",
)
cli_registry.add_commands(app)
add_lineage_commands(app)
add_export_command(app)
add_shapes_command(app)
add_measure_command(app)


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


@app.command(epilog="Example: compactlm run --set rounds.r3.layers=2")
def run(
    params: Annotated[Path | None, typer.Option(help="Use this description of a run instead of params.yaml.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value; repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Stages to run at the same time.")] = 1,
    as_json: Json = False,
) -> None:
    """Bring every stage up to date and record the result.

    --params and --set change params.yaml itself, after everything was checked, and say how to undo it.
    """
    from tasks.params.edit import planned_text, require_file, write_text

    started = psutil.Process().create_time()
    workspace = find_workspace(Path.cwd())
    require_file(params)
    text, planned = planned_text(workspace, params, set_ or [])
    check_run(planned, workspace)
    for line in write_text(workspace, text):
        err.print(line, markup=False)
    with _run_lines():
        record = _run_flow(workspace, workers, started)
    if as_json:
        print_json(record)


def _run_flow(workspace: Path, workers: int, started: float) -> dict[str, Any]:
    from flows.server import configure

    configure(workspace)
    from flows.server import run_server

    with run_server() as ready:
        # The server takes seconds to start in a process of its own; meanwhile this one can import.
        from flows.compress import compress_at
        from tasks.registry.tracking import preload

        preload()
        result = compress_at(ready(), workspace, workers, started)
    if not isinstance(result, dict):
        return {"state": "no change", "wall_seconds": round(time.time() - started, 2), "stages": []}
    # Measured again: the flow's own end takes a second or two, which belongs to the run as well.
    record = write_last_run(workspace, result["state"], result["stages"], time.time() - started)
    err.print(sentence(record))
    return record


@contextmanager
def _run_lines() -> Iterator[None]:
    """Show what the flow and its stages say, with one line that moves for progress."""
    logger = logging.getLogger("compactlm")
    handler = RunLines(err)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with handler:
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


@app.command(epilog="Example: compactlm status --json")
def status(as_json: Json = False) -> None:
    """Show which stages are up to date and where the time of the last run with work to do went."""
    from tasks.running.dvc import pending, read_graph

    workspace = find_workspace(Path.cwd())
    params = load_params(workspace / "params.yaml")
    stages = read_graph(workspace)
    waiting = set(pending(workspace, stages))
    last = read_last_run(workspace) or {"stages": [], "state": "never run"}
    times = {row["name"]: row for row in last["stages"]}
    rows: list[dict[str, Any]] = [
        {"name": stage.name, "state": "to do" if stage.name in waiting else "up to date", "last": times.get(stage.name)}
        for stage in stages
    ]
    keys = ("wall_seconds", "compute_seconds", "overhead_seconds", "overhead_share")
    facts = {"last_state": last["state"], **{key: last.get(key) for key in keys}}
    solving = {name: target for name, target in params.rounds.items() if getattr(target, "budgets", None)}
    searches = {
        name: _content(workspace / f"artifacts/rounds/{name}/trained/search.json")
        for name, target in solving.items()
        if getattr(target, "search", None)
    }
    solved = {name: _solved(workspace, name, searches.get(name, {})) for name in solving}
    if as_json:
        return print_json({"stages": rows, "solved_shapes": solved, "searches": searches, **facts})
    table = Table("stage", "state", "last run", "seconds", box=None)
    for row in rows:
        seen = row["last"] or {}
        table.add_row(row["name"], row["state"], seen.get("state", ""), str(seen.get("seconds", "")))
    out.print(table)
    for name, shape in solved.items():
        words = ", ".join(f"{axis} {size}" for axis, size in shape.items()) or "not pruned yet; see compactlm shapes"
        out.print(f"{name}: {words}")
        if searches.get(name):
            out.print(f"{name}: {_search_words(searches[name])}")
    out.print(f"last run: {last['state']}" + (f", {sentence(last)}" if "wall_seconds" in last else ""))


def _solved(workspace: Path, name: str, search: dict[str, Any]) -> dict[str, int]:
    """Return the shape that was found for the budget of a round, by its pruning or its search; empty before that."""
    if search:
        return dict(next(one["shape_after"] for one in search["candidates"] if one["candidate"] == search["chosen"]))
    return dict(_content(workspace / f"artifacts/rounds/{name}/pruned/plan.json").get("shape_after", {}))


def _content(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _search_words(search: dict[str, Any]) -> str:
    key = f"best_{search['metric']}"
    ranks = [
        f"{one['candidate']} ({one['short'][key]:.4f})"
        for one in sorted(search["candidates"], key=lambda one: int(one["rank_after"]))
    ]
    return f"candidate {search['chosen']} of {len(ranks)}; KL to the teacher after a short distillation: {', '.join(ranks)}"


@app.command(epilog="Example: compactlm models --json")
def models(as_json: Json = False) -> None:
    """List the registered models: what they cost, how good they are, how they were judged."""
    from tasks.registry.records import quality_of

    rows = _model_rows(find_workspace(Path.cwd()))
    if as_json:
        return print_json(rows)
    if not rows:
        return out.print("no model is registered yet; `compactlm run` makes some")
    heads = ("version", "round", "aliases", "parameters", "MB", "ms (batch)", "on test, of teacher's", "verdict")
    table = Table(*heads, box=None)
    for row in rows:
        latency = ", ".join(f"{value:.1f} ({batch})" for batch, value in row["latency_ms_p50"].items())
        (name, mine), (_, theirs) = (quality_of(row[key]["test"]) for key in ("metrics", "teacher_metrics"))
        table.add_row(
            str(row["version"]),
            row["round"],
            ", ".join(row["aliases"]),
            f"{row['params_total']:,}",
            f"{row['size_bytes'] / 1e6:.1f}",
            latency,
            f"{name} {mine:.3f} of {theirs:.3f}",
            row["verdict"]["verdict"],
        )
    out.print(table)
    for row in rows:
        if row["sparsity"] is not None:
            out.print(
                f"version {row['version']}: {row['sparsity']['sparsity_of_masked']:.1%} of the weights in layers and "
                f"{row['sparsity']['sparsity_of_total']:.1%} of all parameters are zero; dense runtimes gain no speed from that"
            )
    out.print(f"model {rows[0]['name']}; folders of the weights: compactlm models --json")


def _model_rows(workspace: Path) -> list[dict[str, Any]]:
    from tasks.registry.tracking import store_exists

    if not store_exists(workspace):
        return []
    from tasks.registry.listing import list_models
    from tasks.registry.tracking import Tracker

    return list_models(Tracker(workspace, load_params(workspace / "params.yaml").registry.model_name))


@app.command(epilog="Example: compactlm report --open")
def report(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False, as_json: Json = False
) -> None:
    """Write the report of the last run with the decisions about its models, as they are now, and print where it is."""
    from tasks.promotion.report import write_report

    workspace = find_workspace(Path.cwd())
    found = write_report(workspace, load_params(workspace / "params.yaml").registry.model_name)
    print_json(found) if as_json else out.print(found["path"], markup=False)
    if open_:
        webbrowser.open(Path(found["path"]).as_uri())


@app.command(epilog='Example: compactlm serve --cron "0 2 * * *"')
def serve(
    cron: Annotated[str, typer.Option(help="When to run, as five cron fields.")] = "0 2 * * *",
    overlap: Annotated[
        Literal["skip", "enqueue"], typer.Option(help="What to do with a tick while a run is under way.")
    ] = "skip",
    audit_cron: Annotated[
        str | None,
        typer.Option(help="When to audit the champion as well, such as '0 6 * * *'; a fault fails its flow run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run on a schedule from this machine until Ctrl-C; a tick with nothing to do adds nothing."""
    from flows.server import configure

    workspace = find_workspace(Path.cwd())
    check_run(load_params(workspace / "params.yaml"), workspace)
    configure(workspace)
    from flows import deploy
    from flows.server import prefect_server

    deploy.check_cron(cron)
    if audit_cron is not None:
        deploy.check_cron(audit_cron, "--audit-cron")
    with prefect_server() as url:
        facts = {
            "cron": cron,
            "audit_cron": audit_cron,
            "overlap": overlap,
            "prefect": url,
            "workspace": str(workspace),
        }
        print_json(facts) if as_json else out.print(f"serving {workspace} at '{cron}'; runs are shown at {url}")
        sys.stdout.flush()
        deploy.serve(workspace, cron, f"{url}/api", overlap, audit_cron)


@app.command(epilog="Example: compactlm ui")
def ui(as_json: Json = False) -> None:
    """Open the pages of Prefect and MLflow over this workspace's records until Ctrl-C."""
    from flows.server import configure

    workspace = find_workspace(Path.cwd())
    load_params(workspace / "params.yaml")
    configure(workspace)
    from flows.server import mlflow_page, prefect_server
    from tasks.registry.tracking import default_uri

    with prefect_server() as prefect, mlflow_page(default_uri(workspace)) as mlflow:
        facts = {"prefect": prefect, "mlflow": mlflow}
        print_json(facts) if as_json else out.print(f"Prefect: {prefect}\nMLflow:  {mlflow}\nCtrl-C ends both")
        sys.stdout.flush()
        while True:
            time.sleep(3600)
