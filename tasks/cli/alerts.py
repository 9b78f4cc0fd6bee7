"""The command that lets a Prefect server tell of runs that failed, are late or stuck, and of what audits and checks found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tasks.cli.console import Json, show
from tasks.cli.project import find_project
from tasks.errors import UserError


def alerts(
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Send JSON to this address.")] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Send mail to this address.")] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="The folder of the alerts, in place of infra/automations.")] = None,
    only_show: Annotated[bool, typer.Option("--show", help="List what is on the server, and change nothing.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Take the alerts of this workspace from the server.")] = False,
    try_: Annotated[bool, typer.Option("--try", help="Make a run that is Failed, to see whether word comes.")] = False,
    as_json: Json = False,
) -> None:
    """Let the Prefect server of PREFECT_API_URL tell of this workspace's runs: failed, late, stuck, silent, audit, drift.

    What is told stands in infra/automations, a file each. Made again it becomes what the files and the options say; nothing is
    made twice. An address with a token is read from COMPACTLM_ALERT_WEBHOOK in place of --webhook, the mail server from
    COMPACTLM_ALERT_SMTP (smtps://USER:PASSWORD@HOST:465); or from the files that COMPACTLM_ALERT_WEBHOOK_FILE and
    COMPACTLM_ALERT_SMTP_FILE name.
    """
    from flows.server import API, configure
    from tasks.running.alerts import SMTP, WEBHOOK, alerts_folder, mail_address, read_alerts, secret, webhook_address

    workspace = find_project()
    if not os.environ.get(API):
        raise UserError(f"{API}: names no server; alerts are kept by one that stays: set it to its address, http://HOST:PORT/api")
    if only_show + delete + try_ > 1 or ((only_show or delete or try_) and (webhook or email or from_)):
        raise UserError("--show, --delete, --try: each stands alone; see `compactlm alerts --help`")
    address, server = webhook or secret(WEBHOOK, os.environ), secret(SMTP, os.environ)
    if not (only_show or delete or try_):
        if email and not server:
            raise UserError(f"{SMTP}: is not set; --email needs a mail server, such as smtps://USER:PASSWORD@HOST:465")
        if not address and not email:
            raise UserError(f"--webhook or --email is needed, or {WEBHOOK} in the environment: who is to be told?")
        address = webhook_address(address, "--webhook" if webhook else WEBHOOK) if address else ""
        server = mail_address(server, email) if email else ""
        found = read_alerts(from_ or alerts_folder(workspace, Path(__file__).resolve().parents[2]))
    configure(workspace)
    from flows.alerts import Ways, delete_alerts, host_of, make_alerts, shown_alerts, try_alerts

    if try_:
        name = try_alerts(workspace)
        return show({"run": name}, as_json, f"made the run '{name}', which is Failed: word of it comes within some seconds")
    if only_show or delete:
        done = shown_alerts(workspace) if only_show else delete_alerts(workspace)
        return show(done, as_json, *(f"{name}: {what}" for name, what in done.items()), *([] if done else ["no alerts"]))
    done = make_alerts(workspace, found, Ways(address, server))
    ways = [*([f"webhook at {host_of(address)}"] if address else []), *([f"e-mail to {email}"] if email else [])]
    lines = [
        *(f"{name}: {what}" for name, what in done.items()),
        f"told by {' and '.join(ways)}; `compactlm alerts --try` shows it",
    ]
    show({"alerts": done, "told_by": ways}, as_json, *lines)
