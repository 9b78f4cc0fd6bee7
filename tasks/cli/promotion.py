"""The commands of `compactlm` that decide about registered models and tell what was decided."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from tasks.cli.console import Json, out, print_json
from tasks.cli.project import find_project, open_registry, params_of
from tasks.errors import UserError

Version = Annotated[str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]", help="Which version; also VERSION or ALIAS alone.")]


def gate(version: Version = "challenger", as_json: Json = False) -> None:
    """Judge a version as a promotion would, against today's champion, and change nothing."""
    from tasks.promotion.decide import describe, known_log, state_of
    from tasks.promotion.gate import judge_promotion
    from tasks.registry.selector import CHALLENGER, find_own_version

    tracker, params, name = open_registry()
    candidate = describe(tracker, name, find_own_version(tracker, version, name, CHALLENGER))
    champion = state_of(known_log(tracker, name), name)["champion"]
    verdict = judge_promotion(tracker, params, candidate, champion)
    if as_json:
        return print_json({"candidate": candidate, "champion": champion, **verdict})
    _print_rules(f"version {candidate['version']} ({candidate['round']})", verdict)


def promote(
    version: Version = "challenger", reason: Annotated[str, typer.Option(help="Why, for the log.")] = "", as_json: Json = False
) -> None:
    """Make a version champion if its gates pass and, where params.yaml asks for it, people approved it.

    A refusal is recorded too and ends with exit code 2.
    """
    from tasks.promotion.proposals import promote_version

    tracker, params, _ = open_registry()
    _tell(promote_version(tracker, params, version, reason), as_json)


def rollback(
    reason: Annotated[str, typer.Option(help="Why; needed, and it stays in the log.")] = "",
    to: Annotated[str, typer.Option(metavar="VERSION", help="Version to go back to, named as elsewhere.")] = "previous",
    as_json: Json = False,
) -> None:
    """Make an earlier champion champion again; its bytes are checked, no metric is asked."""
    from tasks.promotion.decide import Request, actor, decide, describe, known_log
    from tasks.promotion.gate import judge_rollback
    from tasks.registry.selector import find_own_version

    if not reason.strip():
        raise UserError("rollback: a reason is needed; it stays in the log: compactlm rollback --reason WHY")
    tracker, _, name = open_registry()
    number = find_own_version(tracker, to, name, "previous")
    wanted = describe(tracker, name, number)["model_sha256"]
    past = [entry["champion"] for entry in known_log(tracker, name) if entry["model"] == name and entry["champion"]]
    if wanted not in [champion["model_sha256"] for champion in past]:
        known = ", ".join(sorted({champion["version"] for champion in past})) or "none"
        raise UserError(
            f"--to {to}: version {number} has never been champion; those that have: {known}. `compactlm promote` makes a new one"
        )
    request = Request("rollback", number, reason, actor())
    _tell(decide(tracker, name, request, lambda candidate, _: judge_rollback(tracker, candidate)), as_json)


def history(
    check: Annotated[bool, typer.Option("--check", help="Compare the log with its other copy and with MLflow.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Bring log copies and aliases to what was decided.")] = False,
    drop: Annotated[
        str,
        typer.Option(
            metavar="DIGEST", help="With --repair: another clone's decision, as its message names it, that does not count."
        ),
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print every decision as a page of markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Show every decision, oldest first; --check ends with exit code 2 if something was changed without one."""
    from tasks.promotion.decide import reconcile
    from tasks.promotion.decision_page import as_markdown
    from tasks.promotion.decisions import read_log
    from tasks.promotion.drift import registry_drift

    if drop and not repair:
        raise UserError("--drop is a word to --repair: compactlm history --repair --drop DIGEST")
    workspace = find_project()
    name = params_of(workspace).registry.model_name
    facts: dict[str, Any] = {}
    if repair:
        facts["repaired"] = reconcile(open_registry().tracker, name, repair=True, drop=drop)
    if check:
        drift = registry_drift(open_registry().tracker, name)
        facts["differences"] = drift.faults
    # After the others, which may have fetched some.
    log = facts["decisions"] = [entry for entry in read_log(workspace) if entry["model"] == name]
    if as_json:
        print_json(facts)
    elif markdown:
        sys.stdout.write("\n".join(as_markdown(entry) for entry in log))
    else:
        _print_history(log, name)
        for line in facts.get("repaired", ()):
            out.print(line)
        if check and not facts["differences"]:
            out.print("the log is intact, and the aliases are what it says")
    if check and drift.faults:
        raise UserError(drift.sentence(name))


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="MODEL@ALIAS, MODEL/VERSION, ALIAS or VERSION.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    as_json: Json = False,
) -> None:
    """Show two versions side by side on the same rows: accuracy by set and slice, and how many rows changed."""
    from tasks.promotion.compare import compare_versions
    from tasks.promotion.decide import describe
    from tasks.registry.selector import find_version

    tracker, params, name = open_registry()
    sides = [describe(tracker, *find_version(tracker, side, name)) for side in (first, second)]
    rows = compare_versions(tracker, params, *sides)
    if as_json:
        return print_json({"a": sides[0], "b": sides[1], "rows": rows})
    heads = ("set", "slice", "rows", "A", "B", "points (95 %)", "lost", "won", "other")
    table = Table(*heads, box=None, title=f"A: version {sides[0]['version']}, B: version {sides[1]['version']}")
    for row in rows:
        if row["doubt"]:
            table.add_row(row["set"], row["slice"], "", "", "", row["doubt"], "", "", "")
            continue
        change = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        cells = [row["set"], row["slice"], str(row["rows"]), f"{row['a']:.3f}", f"{row['b']:.3f}", change]
        table.add_row(*cells, *(str(row[key]) for key in ("lost", "gained", "flipped")))
    out.print(table)
    out.print("accuracy of A and B; rows that B lost, won, and answers otherwise than A")


def _tell(entry: dict[str, Any], as_json: bool) -> None:
    candidate, verdict = entry["candidate"], entry["verdict"]
    words = f"version {candidate['version']} ({candidate['round']})"
    if as_json:
        print_json(entry)
    else:
        _print_rules(words, verdict)
    from tasks.promotion.proposals import how_to, is_waiting

    if is_waiting(entry):
        raise UserError(f"decision {entry['number']}: {words}: {verdict['sentence']}. {how_to(verdict['approval']['proposal'])}")
    if entry["outcome"] != "done":
        raise UserError(f"decision {entry['number']}: {words} is refused: {verdict['sentence']}")
    if not as_json:
        out.print(f"decision {entry['number']}: {words} is champion; to go back: compactlm rollback --reason WHY")


def _print_rules(words: str, verdict: dict[str, Any]) -> None:
    out.print(f"{words}: {verdict['verdict']}")
    for rule in verdict["rules"]:
        warning = " (a warning)" if rule["severity"] == "warn" else ""
        out.print(f"  {rule['result']}  {rule['sentence']}{warning}")


def _print_history(log: list[dict[str, Any]], name: str) -> None:
    if not log:
        return out.print(f"no decision about {name} yet; the first round whose gates pass makes one")
    from tasks.promotion.decision_page import describe_answers
    from tasks.promotion.proposals import is_waiting

    for entry in log:
        candidate, done = entry["candidate"], entry["outcome"] == "done"
        outcome = "waiting" if is_waiting(entry) else entry["outcome"]
        words = f"{entry['kind']} version {candidate['version']} ({candidate['round']}): {outcome}, by {entry['actor']}"
        out.print(f"{entry['number']:>4}  {entry['at']}  {words}")
        answers = describe_answers(entry["verdict"].get("approval"))
        for line in filter(None, (entry["reason"], None if done else entry["verdict"]["sentence"], *answers)):
            out.print(f"      {line}")
