"""The commands that show what is there: stages and their times, registered models, the report."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tasks.cli.console import Json, out, print_json, show
from tasks.cli.project import find_project, params_of

if TYPE_CHECKING:
    from tasks.artifacts import RoundPaths


def status(as_json: Json = False) -> None:
    """Show which stages are up to date and where the time of the last run with work to do went."""
    from tasks.artifacts import RoundPaths
    from tasks.running.dvc import read_state
    from tasks.running.good_run import good_run_words, read_good_run
    from tasks.running.last_run import read_last_run, sentence

    workspace = find_project()
    params = params_of(workspace)
    stages, waiting = read_state(workspace)
    last = read_last_run(workspace) or {"stages": [], "state": "never run"}
    times = {row["name"]: row for row in last["stages"]}
    rows: list[dict[str, Any]] = [
        {"name": stage.name, "state": "to do" if stage.name in waiting else "up to date", "last": times.get(stage.name)}
        for stage in stages
    ]
    keys = ("wall_seconds", "compute_seconds", "overhead_seconds", "overhead_share")
    good = read_good_run(workspace)
    facts = {"last_state": last["state"], "last_good_run": good, **{key: last.get(key) for key in keys}}
    solving = {name: target for name, target in params.rounds.items() if getattr(target, "budgets", None)}
    paths = {name: RoundPaths(workspace, name) for name in solving}
    searches = {name: _content(paths[name].found_shape) for name, target in solving.items() if getattr(target, "search", None)}
    solved = {name: _solved(paths[name], searches.get(name, {})) for name in solving}
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
    out.print(f"last good run: {good_run_words(good)}")


def _solved(paths: RoundPaths, search: Mapping[str, Any]) -> dict[str, int]:
    """Return the shape that was found for the budget of a round, by its pruning or its search; empty before that."""
    for candidate in search.get("candidates", ()):
        if candidate["candidate"] == search["chosen"]:
            return dict(candidate["shape_after"])
    return dict(_content(paths.plan).get("shape_after", {}))


def _content(path: Path) -> dict[str, Any]:
    from tasks.files import read_json

    return dict(read_json(path)) if path.exists() else {}


def _search_words(search: Mapping[str, Any]) -> str:
    key = f"best_{search['metric']}"
    ranked = sorted(search["candidates"], key=lambda candidate: int(candidate["rank_after"]))
    ranks = [f"{candidate['candidate']} ({candidate['short'][key]:.4f})" for candidate in ranked]
    return f"candidate {search['chosen']} of {len(ranks)}; KL to the teacher after a short distillation: {', '.join(ranks)}"


def models(
    all_: Annotated[bool, typer.Option("--all", help="The models of other projects on the same server, too.")] = False,
    as_json: Json = False,
) -> None:
    """List the registered models: what they cost, how good they are, how they were judged.

    On a server those of this project, by the name in params.yaml. --json brings their weights to this machine and says where.
    """
    rows, others = _model_rows(find_project(), all_, fetch=as_json)
    if as_json:
        return print_json([*rows, *others])
    if not rows and not others:
        return out.print("no model is registered yet; `compactlm run` makes some")
    for row in others:
        aliases = f" ({', '.join(row['aliases'])})" if row["aliases"] else ""
        out.print(f"of another project: {row['name']}/{row['version']}{aliases}: {row['round']}", markup=False)
    if not rows:
        return
    heads = ("version", "round", "aliases", "parameters", "MB", "ms (batch)", "on test, of teacher's", "verdict")
    table = Table(*heads, box=None)
    for row in rows:
        (metric, value), (_, of_teacher) = (_on_test(row[key]) for key in ("metrics", "teacher_metrics"))
        table.add_row(
            str(row["version"]),
            row["round"],
            ", ".join(row["aliases"]),
            f"{row['params_total']:,}",
            f"{row['size_bytes'] / 1e6:.1f}",
            ", ".join(f"{ms:.1f} ({batch})" for batch, ms in row["latency_ms_p50"].items()),
            f"{metric} {value:.3f} of {of_teacher:.3f}",
            row["verdict"]["verdict"],
        )
    out.print(table)
    for row in rows:
        if row["random_init"] is not None:
            metric, value = _on_test(row["random_init"])
            out.print(f"version {row['version']}: its shape trained from random weights has {metric} {value:.3f} on test")
        if row["sparsity"] is not None:
            out.print(
                f"version {row['version']}: {row['sparsity']['sparsity_of_masked']:.1%} of the weights in layers and "
                f"{row['sparsity']['sparsity_of_total']:.1%} of all parameters are zero; dense runtimes gain no speed from that"
            )
    names = ", ".join(dict.fromkeys(row["name"] for row in rows))
    out.print(f"model {names}; folders of the weights: compactlm models --json")


def _on_test(metrics: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    from tasks.registry.records import quality_of

    return quality_of(metrics["test"])


def _model_rows(workspace: Path, others: bool, fetch: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of this project's models, and of those of other projects if they are wanted."""
    from tasks.registry.tracking import Tracker, is_shared, store_exists

    if not store_exists(workspace):
        return [], []
    from tasks.registry.listing import list_models, list_others

    name = params_of(workspace).registry.model_name
    tracker = Tracker(workspace, name)
    if not is_shared():  # the store of a workspace has its own models alone, by whatever names
        return list_models(tracker), []
    return list_models(tracker, name, fetch=fetch), list_others(tracker, name) if others else []


def report(open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False, as_json: Json = False) -> None:
    """Write the report of the last run with the decisions about its models, as they are now, and print where it is."""
    from tasks.promotion.report import write_report

    workspace = find_project()
    model = params_of(workspace).registry.model_name
    written = write_report(workspace, model)
    other = f"it is of {written['model']}; `compactlm run` writes one of {model}, the name in params.yaml"
    show(written, as_json, written["path"], *([other] if written["model"] != model else []))
    if open_:
        webbrowser.open(Path(written["path"]).as_uri())
