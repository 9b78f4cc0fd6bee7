"""The commands of `compactlm` by which people answer a proposed promotion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.cli.console import Json, show
from tasks.cli.project import find_project, params_of
from tasks.errors import UserError

Selector = Annotated[
    str | None, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]", help="What is proposed; not needed if it is one thing.")
]
Key = Annotated[Path, typer.Option(help="Your private ed25519 key: OpenSSH or PEM, or the .pub file of one in your agent.")]
Print = Annotated[bool, typer.Option("--print", help="Print the signed answer, for the form in Prefect; write no file.")]
DEFAULT_KEY = Path("~/.ssh/id_ed25519")


def approve(
    selector: Selector = None,
    key: Key = DEFAULT_KEY,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    print_: Print = False,
    as_json: Json = False,
) -> None:
    """Sign a proposed promotion; `compactlm promote` carries it out once enough people have."""
    _answer("approve", selector, key, reason, print_, as_json)


def reject(
    selector: Selector = None,
    reason: Annotated[str, typer.Option(help="Why; needed, and it stays in the log.")] = "",
    key: Key = DEFAULT_KEY,
    print_: Print = False,
    as_json: Json = False,
) -> None:
    """Sign that a proposed promotion must not happen; one such answer of an approver is enough."""
    if not reason.strip():
        raise UserError("reject: a reason is needed; it stays in the log: compactlm reject --reason WHY")
    _answer("reject", selector, key, reason, print_, as_json)


def _answer(decision: str, selector: str | None, key: Path, reason: str, print_: bool, as_json: bool) -> None:
    from tasks.promotion.answers import find_proposal, keep_answer, signed_answer
    from tasks.promotion.remote import fetched_log

    workspace = find_project()
    fetched_log(workspace)  # what others have proposed or settled
    model, version, numbers = _meant(workspace, selector)
    proposal = find_proposal(workspace, model, numbers, version)
    signed = signed_answer(proposal, decision, reason, key.expanduser())
    if print_:
        sys.stdout.write(json.dumps(signed, sort_keys=True) + "\n")
        return
    path = keep_answer(workspace, signed).relative_to(workspace)
    show(
        {"path": str(path), "proposal": proposal, **signed},
        as_json,
        f"{signed['statement']['name']}: {decision} {proposal['round']} of {model}, weights {proposal['candidate'][:12]}, "
        f"proposed at {proposal['proposed_at']}",
        f"written to {path}; commit it, then `compactlm promote` counts it",
    )


def _meant(workspace: Path, selector: str | None) -> tuple[str, str | None, dict[str, str]]:
    """Return model name, version number (None: the only proposal), and sha256 -> number as this registry numbers them."""
    from tasks.registry.selector import find_version, parse_selector
    from tasks.registry.tracking import Tracker, store_exists

    name = params_of(workspace).registry.model_name
    if not store_exists(workspace):
        selected = parse_selector(selector, name)
        if selected.alias:
            raise UserError(
                f"{selector!r}: no registry here knows this alias; write {selected.model}/VERSION as `compactlm history` shows it"
            )
        return selected.model, selected.version, {}
    tracker = Tracker(workspace)
    selected = parse_selector(selector, name, tracker.aliases(name))
    version = selected.version or (find_version(tracker, selector, name)[1] if selected.alias else None)
    return selected.model, version, tracker.numbers(selected.model)
