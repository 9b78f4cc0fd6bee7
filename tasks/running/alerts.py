"""Alerts as files: what is told of a workspace's runs, by which ways, and what the message says.

A file of `infra/automations` is an automation as Prefect knows it, without its actions; those, and the tag of the workspace, are
added when it is made. Addresses that hold a secret come from the environment, or from a file that it names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tasks.errors import ParamsError, ResourceError, UserError
from tasks.params.file import read_yaml

PLACE: Final = Path("infra") / "automations"
WEBHOOK: Final = "COMPACTLM_ALERT_WEBHOOK"
SMTP: Final = "COMPACTLM_ALERT_SMTP"
FILE: Final = "_FILE"  # behind the name of a variable: the file that holds its value
KEYS: Final = ("name", "description", "trigger")
# How a mail server is spoken to -> the way of Apprise, its mode, the usual port.
MAIL: Final = {
    "smtp": ("mailto", "insecure", 25),
    "smtp+starttls": ("mailtos", "starttls", 587),
    "smtps": ("mailtos", "ssl", 465),
}


# What Prefect knows of a run when it tells, in the language of its templates.
MESSAGE: Final = "(flow_run.state.message or '')"
SENTENCE: Final = f"(flow.name ~ ' ' ~ flow_run.name ~ ' is ' ~ flow_run.state.name ~ ': ' ~ {MESSAGE})"


class Alert(TypedDict):
    """What is told: `trigger` is as Prefect has it."""

    name: str
    description: str
    trigger: dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """Of what is told: a workspace, and the address of the page on which its runs are."""

    workspace: str
    folder: str
    page: str


def read_alerts(folder: Path) -> list[Alert]:
    """Return the alerts of a folder; ParamsError that names file and key of what is none."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ParamsError(f"{folder}: no file *.yaml with an alert; give another folder with --from")
    alerts = [_alert(path, read_yaml(path)) for path in paths]
    names = [alert["name"] for alert in alerts]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ParamsError(f"{path}: name: {name!r} is that of another file in {folder}, too; give each its own")
    return alerts


def _alert(path: Path, content: object) -> Alert:
    if not isinstance(content, dict) or set(content) != set(KEYS):
        found = ", ".join(sorted(map(str, content))) if isinstance(content, dict) else type(content).__name__
        raise ParamsError(f"{path}: has {found or 'nothing'}; an alert has the keys {', '.join(KEYS)} and no other")
    for key in KEYS[:2]:
        value = content[key]
        if not isinstance(value, str) or not value.strip() or not value.isprintable() or set(value) & set("{}"):
            raise ParamsError(f"{path}: {key}: {value!r} is no line of text without braces; write one")
    if not isinstance(content["trigger"], dict):
        raise ParamsError(f"{path}: trigger: {content['trigger']!r} is no trigger of Prefect; see infra/automations for some")
    return Alert(name=content["name"], description=content["description"], trigger=content["trigger"])


def alerts_folder(workspace: Path, code: Path) -> Path:
    """Return where the alerts of a workspace are: in it, or beside the code that runs."""
    for place in (workspace / PLACE, code / PLACE):
        if place.is_dir():
            return place
    raise UserError(f"{workspace / PLACE}: no such folder; give the folder of your alerts with --from")


# Secrets


def secret(name: str, environ: Mapping[str, str]) -> str:
    """Return what a variable says, or the file that NAME_FILE names; empty where neither is set."""
    if value := environ.get(name, "").strip():
        return value
    place = environ.get(name + FILE)
    if not place:
        return ""
    try:
        return Path(place).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{name}{FILE}: {place} cannot be read ({error}); give a file with the address alone") from None


def webhook_address(address: str, source: str) -> str:
    """Return the address of a webhook; UserError, which does not show it, where it is none."""
    parts = _parts(address)
    if parts is None or parts.scheme not in ("http", "https"):
        raise UserError(f"{source}: is no address of a webhook; write one like https://hooks.example.org/services/TOKEN")
    return address


def mail_address(smtp: str, to: str) -> str:
    """Return where Apprise, which Prefect sends mail with, sends it: `smtp` is like smtps://USER:PASSWORD@HOST:465?from=ADDRESS."""
    parts = _parts(smtp)
    if parts is None or parts.scheme not in MAIL or set(parse_qs(parts.query)) - {"from"}:
        ways = ", ".join(f"{scheme}://" for scheme in MAIL)
        raise UserError(
            f"{SMTP}: is no mail server; write {ways} and USER:PASSWORD@HOST:PORT, or HOST:PORT where it wants no password, "
            "and ?from=ADDRESS if the sender is not the user"
        )
    if "@" not in to.strip("@") or not to.isprintable() or " " in to:
        raise UserError(f"--email {to!r}: is no address; write one like team@example.org")
    way, mode, port = MAIL[parts.scheme]
    login = f"{quote(_plain(parts.username), safe='')}:{quote(_plain(parts.password), safe='')}@" if parts.username else ""
    sender = parse_qs(parts.query).get("from", [_plain(parts.username)])[0]
    sender = sender if "@" in sender else f"compactlm@{parts.hostname}"
    query = urlencode({"smtp": parts.hostname, "from": sender, "to": to, "mode": mode, "format": "text"})
    return f"{way}://{login}{parts.hostname}:{parts.port or port}/?{query}"


def _plain(quoted: str | None) -> str:
    return unquote(quoted or "")


def _parts(address: str) -> Any:
    try:
        parts = urlsplit(address)
        return parts if parts.hostname and (parts.port is None or parts.port) else None
    except ValueError:
        return None


# What is said


def payload(alert: Alert, subject: Subject) -> str:
    """Return the template of the JSON that a webhook is sent; Prefect fills it in. `text` is what chat programs show."""
    values = {
        "alert": _quoted(alert["name"]),
        "about": _quoted(alert["description"]),
        "workspace": _quoted(subject.workspace),
        "folder": _quoted(subject.folder),
        "flow": "flow.name",
        "run": "flow_run.name",
        "state": "flow_run.state.name",
        "message": MESSAGE,
        "page": _page(subject),
        "text": f"({_quoted(_heading(alert, subject) + ': ')} ~ {SENTENCE} ~ ' ' ~ {_page(subject)})",
    }
    return "{" + ", ".join(f'"{key}": {{{{ {value}|tojson }}}}' for key, value in values.items()) + "}"


def mail(alert: Alert, subject: Subject) -> tuple[str, str]:
    """Return the templates of the heading and the text of a mail; Prefect fills them in."""
    place = _quoted(f"folder {subject.folder}, workspace {subject.workspace}")
    parts = [_quoted(alert["description"] + "."), SENTENCE, place, _page(subject)]
    return f"{{{{ {_quoted(_heading(alert, subject))} }}}}", "\n\n".join(f"{{{{ {part} }}}}" for part in parts)


def _heading(alert: Alert, subject: Subject) -> str:
    return f"{alert['name']} ({Path(subject.folder).name} {subject.workspace})"


def _page(subject: Subject) -> str:
    return f"({_quoted(subject.page + '/runs/flow-run/')} ~ flow_run.id|string)"


def _quoted(text: str) -> str:
    """Return a text as a string of Jinja's, whatever is in it."""
    return json.dumps(text)
