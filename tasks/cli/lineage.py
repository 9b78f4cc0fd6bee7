"""The commands that ask where a model came from: audit, lineage, diff; and publish, which records it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from tasks.cli.console import Json, err, out, print_json
from tasks.cli.project import find_project, params_of
from tasks.errors import UserError

Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL[@ALIAS|/VERSION]]", help="Which version; without one, the champion of params.yaml's model."),
]

SHOWN: Final = 12  # lines of a section, for people
SHA256_CHARACTERS: Final = 64


def audit(
    model: Model = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the lineage.")] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also run its stages again from their commits, without any cache, and compare.")
    ] = False,
    stages: Annotated[
        str, typer.Option("--stages", metavar="NAMES", help="Replay these only, such as prune@r1,prune@r2 or 'prune@*'.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a model's lineage: every byte, link, number and verdict, from the data to the registered version.

    Exit code 0: every check passes; 1: a check fails; 3: none fails, but some could not be decided (UNKNOWN).
    """
    from tasks.audit.walk import audit as run_audit
    from tasks.lineage.checks import EXIT_CODES

    workspace = find_project()
    again = tuple(filter(None, (name.strip() for name in stages.split(",")))) or (("*",) if replay else ())
    with err.status("auditing") as status:
        tell = partial(err.print, markup=False)
        report = run_audit(workspace, model, lambda line: status.update(escape(line)), again, tell)
    if html is not None:
        from tasks.report.audit import render

        html.write_text(render(report), encoding="utf-8")
    if as_json:
        print_json(report)
    else:
        _print_report(report)
        if html is not None:
            out.print(f"page: {html}", markup=False)
    sys.exit(EXIT_CODES[report["result"]])


def lineage(
    model: Model = None,
    up: Annotated[bool, typer.Option("--up", help="What the model rests on, from the data on; the default.")] = False,
    down: Annotated[
        str | None,
        typer.Option("--down", metavar="THING", help="The models that rest on a digest, a commit, a path, a source or a row."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where a model came from, or which models came from a thing, as recorded; `audit` verifies it."""
    from tasks.audit.questions import lineage_down, lineage_up, tree

    workspace = find_project()
    if down is not None:
        if model is not None or up:
            raise UserError("--down asks about every model: leave out the model and --up")
        answer = lineage_down(workspace, down)
        lines = [f"{_title(row)}: {len(row['because'])} times, first {row['because'][0]}" for row in answer["models"]]
        lines += [f"{_title(row)}: its data sets are not here to look for a row; `dvc pull`" for row in answer["unread"]]
        lines = lines or [f"no registered model rests on {down}"]
    else:
        answer = lineage_up(workspace, model)
        lines = [f"{_title(answer)} rests on", *tree(answer["stages"])]
    if as_json:
        return print_json(answer)
    for line in lines:
        out.print(line, markup=False)


def diff(
    first: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]")],
    second: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]")],
    as_json: Json = False,
) -> None:
    """Show what differs between two models: data, params, code, environment, files and results."""
    from tasks.audit.questions import diff as run_diff

    answer = run_diff(find_project(), first, second)
    if as_json:
        return print_json(answer)
    out.print(f"{_title(answer['first'])} -> {_title(answer['second'])}", markup=False)
    for section in ("data", "params", "code", "environment", "git", "files", "results"):
        changes = answer[section]
        out.print(f"{section}: {len(changes) or 'nothing'} differ{'s' if len(changes) < 2 else ''}", markup=False)
        for name, (before, after) in list(changes.items())[:SHOWN]:
            out.print(f"  {name}: {_words(before)} -> {_words(after)}", markup=False)
        if len(changes) > SHOWN:
            out.print(f"  and {len(changes) - SHOWN} more; --json has them all", markup=False)


def publish(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the whole index again, with every run that Git and DVC know.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Record in MLflow what `dvc repro` made; with --rebuild all runs, versions and aliases, into an empty store.

    Exit code 1: a version that is known could not be made again; its number stays free.
    """
    workspace = find_project()
    with err.status("recording") as status:
        answer = _rebuild(workspace, status.update) if rebuild else _publish(workspace)
    faults = [*answer.get("faults", ()), *(f"{_number(row)}: {row['why']}" for row in answer.get("lost", ()))]
    if as_json:
        print_json(answer)
    else:
        out.print(f"{len(answer['runs'])} {'runs' if rebuild else 'rounds'} recorded; registered:", markup=False)
        for version in answer["versions"]:
            aliases = "".join(f" @{alias}" for alias in version["aliases"])
            out.print(f"  {_number(version)}{aliases}  {version['model_sha256'][:12]}", markup=False)
        for line in faults:
            out.print(f"  {line}", markup=False)
    sys.exit(1 if faults else 0)


def _publish(workspace: Path) -> dict[str, Any]:
    from tasks.promotion.first_champion import settle_champion
    from tasks.registry.live import publish
    from tasks.registry.rebuild import list_versions

    runs = publish(workspace, settle_champion)
    return {"runs": runs, "versions": list_versions(workspace, params_of(workspace).registry.model_name)}


def _rebuild(workspace: Path, say: Callable[[str], None]) -> dict[str, Any]:
    from tasks.promotion.decide import reconcile
    from tasks.promotion.decisions import read_log
    from tasks.registry.rebuild import Decided, rebuild

    return rebuild(workspace, Decided(read_log, reconcile), say)


def _number(row: Mapping[str, Any]) -> str:
    return f"{row['model']}/{row['version']}"


def _words(value: object) -> str:
    text = "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) != SHA256_CHARACTERS else text[:12]


def _title(row: Mapping[str, Any]) -> str:
    aliases = "".join(f" @{alias}" for alias in row["aliases"])
    return f"{row['model']}/{row['version']}{aliases} ({row['round']})"


def _print_report(report: Mapping[str, Any]) -> None:
    names = dict.fromkeys(check["name"] for check in report["checks"])
    for name in names:
        checks = [check for check in report["checks"] if check["name"] == name]
        results = [check["result"] for check in checks]
        worst = next(result for result in ("FAIL", "UNKNOWN", "PASS") if result in results)
        out.print(f"{worst:8}{name:18}{results.count('PASS')} of {len(checks)} pass", markup=False)
        for check in checks:
            if check["result"] != "PASS":
                out.print(f"        {check['result']} {check['subject']}: {check['sentence']}", markup=False)
            if check["result"] == "FAIL":
                out.print(f"          expected {check['expected']}\n          found    {check['found']}", markup=False)
    counts = report["counts"]
    out.print(
        f"{report['result']}: {_title(report)}: "
        f"{counts['PASS']} pass, {counts['FAIL']} fail, {counts['UNKNOWN']} unknown; {len(report['stages'])} stages, "
        f"{report['files']} files, {report['bytes'] / 1e6:.1f} MB hashed in {report['seconds']:.1f} s",
        markup=False,
    )
