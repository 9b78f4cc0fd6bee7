"""The commands that ask where a model came from: audit, lineage, diff; and publish, which records it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tasks.cli.console import Json, err, show, shown
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
        tell = err.print
        report = run_audit(workspace, model, lambda line: status.update(shown(line)), again, tell)
    if html is not None:
        from tasks.report.audit import render

        html.write_text(render(report), encoding="utf-8")
    show(report, as_json, *_report_lines(report), *([f"page: {html}"] if html is not None else []))
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
    show(answer, as_json, *lines)


def diff(
    first: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]")],
    second: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]")],
    as_json: Json = False,
) -> None:
    """Show what differs between two models: data, params, code, environment, files and results."""
    from tasks.audit.questions import diff as run_diff

    answer = run_diff(find_project(), first, second)
    lines = [f"{_title(answer['first'])} -> {_title(answer['second'])}"]
    for section in ("data", "params", "code", "environment", "git", "files", "results"):
        changes = answer[section]
        lines.append(f"{section}: {len(changes) or 'nothing'} differ{'s' if len(changes) < 2 else ''}")
        first_ones = list(changes.items())[:SHOWN]
        lines += [f"  {name}: {_words(before)} -> {_words(after)}" for name, (before, after) in first_ones]
        lines += [f"  and {len(changes) - SHOWN} more; --json has them all"] if len(changes) > SHOWN else []
    show(answer, as_json, *lines)


def publish(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the whole index again, with every run that Git and DVC know.")
    ] = False,
    give_up: Annotated[
        bool,
        typer.Option("--give-up", help="With --rebuild: go on without versions whose files are lost; their numbers stay free."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Record in MLflow what `dvc repro` made; with --rebuild all runs, versions and aliases, into an empty store.

    Files of older runs that are not here are fetched from the DVC remote. Exit code 1: with --give-up, a version that is known
    could not be made again.
    """
    if give_up and not rebuild:
        raise UserError("--give-up is a word to --rebuild: compactlm publish --rebuild --give-up")
    workspace = find_project()
    with err.status("recording") as status:
        answer = _rebuild(workspace, lambda line: status.update(shown(line)), give_up) if rebuild else _publish(workspace)
    lost = [f"{row['model']}/{row['version']}: {row['why']}" for row in answer.get("lost", ())]
    faults = [*answer.get("faults", ()), *lost]
    lines = [f"{_named(version)}  {version['model_sha256'][:12]}" for version in answer["versions"]]
    head = f"{len(answer['runs'])} {'runs' if rebuild else 'rounds'} recorded; registered:"
    show(answer, as_json, head, *(f"  {line}" for line in (*lines, *faults)))
    sys.exit(1 if faults else 0)


def _publish(workspace: Path) -> dict[str, Any]:
    from tasks.promotion.first_champion import settle_champion
    from tasks.registry.live import publish
    from tasks.registry.rebuild import list_versions

    runs = publish(workspace, settle_champion)
    return {"runs": runs, "versions": list_versions(workspace, params_of(workspace).registry.model_name)}


def _rebuild(workspace: Path, say: Callable[[str], None], give_up: bool) -> dict[str, Any]:
    from tasks.git import has_git
    from tasks.promotion.first_champion import DECIDED
    from tasks.promotion.remote import fetched_log, remote_of
    from tasks.registry.rebuild import rebuild
    from tasks.registry.shared_runs import share_runs

    if has_git(workspace):
        fetched_log(workspace)
        remote = remote_of(workspace)
        if remote is not None and (trouble := share_runs(workspace, remote)):
            raise UserError(f"records of runs may be missing here, so nothing is recorded: {trouble}")
    return rebuild(workspace, DECIDED, say, give_up=give_up)


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['model']}/{row['version']}" + "".join(f" @{alias}" for alias in row["aliases"])


def _words(value: object) -> str:
    text = "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) != SHA256_CHARACTERS else text[:12]


def _title(row: Mapping[str, Any]) -> str:
    return f"{_named(row)} ({row['round']})"


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each kind of check, below it those that do not pass, and a line for all."""
    lines = []
    for name in dict.fromkeys(check["name"] for check in report["checks"]):
        checks = [check for check in report["checks"] if check["name"] == name]
        results = [check["result"] for check in checks]
        worst = next(result for result in ("FAIL", "UNKNOWN", "PASS") if result in results)
        lines.append(f"{worst:8}{name:18}{results.count('PASS')} of {len(checks)} pass")
        for check in checks:
            if check["result"] != "PASS":
                lines.append(f"        {check['result']} {check['subject']}: {check['sentence']}")
            if check["result"] == "FAIL":
                lines += [f"          expected {check['expected']}", f"          found    {check['found']}"]
    counts = report["counts"]
    return [
        *lines,
        f"{report['result']}: {_title(report)}: "
        f"{counts['PASS']} pass, {counts['FAIL']} fail, {counts['UNKNOWN']} unknown; {len(report['stages'])} stages, "
        f"{report['files']} files, {report['bytes'] / 1e6:.1f} MB hashed in {report['seconds']:.1f} s",
    ]
