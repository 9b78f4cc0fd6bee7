"""The commands that ask where a model came from: audit, lineage, diff."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tasks.lineage.start import find_workspace

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL[@ALIAS|/VERSION]]", help="Which version; without one, the champion of params.yaml's model."
    ),
]


def add_lineage_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    app.command(epilog="Example: compactlm audit compactlm-sentiment@champion --html audit.html")(audit)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")


def audit(
    model: Model = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the lineage.")] = None,
    as_json: Json = False,
) -> None:
    """Check a model's lineage: every byte, link, number and verdict, from the data to the registered version.

    Exit code 0: every check passes; 1: a check fails; 3: none fails, but some could not be decided (UNKNOWN).
    """
    from tasks.audit import audit as run_audit
    from tasks.lineage.checks import EXIT_CODES

    workspace = find_workspace(Path.cwd())
    with err.status("auditing") as status:
        report = run_audit(workspace, model, lambda line: status.update(line))
    if html is not None:
        from tasks.lineage.audit_page import render

        html.write_text(render(report), encoding="utf-8")
    if as_json:
        _print_json(report)
    else:
        _print_report(report)
        if html is not None:
            out.print(f"page: {html}", markup=False)
    sys.exit(EXIT_CODES[report["result"]])


def _print_report(report: Mapping[str, Any]) -> None:
    names = dict.fromkeys(check["name"] for check in report["checks"])
    for name in names:
        mine = [check for check in report["checks"] if check["name"] == name]
        results = [check["result"] for check in mine]
        worst = next(one for one in ("FAIL", "UNKNOWN", "PASS") if one in results)
        out.print(f"{worst:8}{name:16}{results.count('PASS')} of {len(mine)} pass", markup=False)
        for check in mine:
            if check["result"] != "PASS":
                out.print(f"        {check['result']} {check['subject']}: {check['sentence']}", markup=False)
            if check["result"] == "FAIL":
                out.print(f"          expected {check['expected']}\n          found    {check['found']}", markup=False)
    counts = report["counts"]
    aliases = "".join(f" @{alias}" for alias in report["aliases"])
    out.print(
        f"{report['result']}: {report['model']}/{report['version']}{aliases} ({report['round']}): "
        f"{counts['PASS']} pass, {counts['FAIL']} fail, {counts['UNKNOWN']} unknown; {len(report['stages'])} stages, "
        f"{report['files']} files, {report['bytes'] / 1e6:.1f} MB hashed in {report['seconds']:.1f} s",
        markup=False,
    )
