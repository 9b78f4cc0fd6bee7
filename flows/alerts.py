"""Makes the alerts of a workspace on its Prefect server: an automation a file, and a block for each way by which they are told.

Names carry the id of the workspace, so many can share a server. Made again they become what the files say; none is made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.states import Failed
from pydantic import SecretStr, ValidationError

from flows.compress import compress
from flows.dead import tag_of
from tasks.errors import ParamsError
from tasks.running.alerts import Alert, Subject, mail, payload
from tasks.running.identity import workspace_id

TAG: Final = "compactlm-alerts"
COMPARED: Final = {"name", "description", "tags", "trigger", "actions", "enabled"}
PAGES: Final = "/api"  # behind the address of Prefect's pages: that of its API


@dataclass(frozen=True)
class Ways:
    """By what alerts are told: addresses, of which an empty one is no way. Both may hold a secret."""

    webhook: str = ""
    mail: str = ""


def make_alerts(workspace: Path, alerts: Sequence[Alert], ways: Ways) -> dict[str, str]:
    """Bring the alerts of a workspace at the server at hand to these; return name -> made, changed, unchanged or removed."""
    with get_client(sync_client=True) as client:
        subject = _subject(workspace, client)
        blocks = _save_blocks(workspace, ways)
        wanted = [_automation(alert, subject, blocks, tag_of(workspace)) for alert in alerts]
        there = {automation.name: automation for automation in _ours(workspace, client)}
        done = {core.name: _bring(core, there.pop(core.name, None), client) for core in wanted}
        for name, automation in there.items():
            client.delete_automation(automation.id)
            done[name] = "removed"
        return done


def shown_alerts(workspace: Path) -> dict[str, str]:
    """Return name -> the ways by which each alert of a workspace is told; nothing secret."""
    with get_client(sync_client=True) as client:
        return {each.name: _ways_of(each) for each in sorted(_ours(workspace, client), key=lambda one: one.name)}


def delete_alerts(workspace: Path) -> dict[str, str]:
    """Return name -> removed, after the alerts of a workspace and their addresses are gone."""
    with get_client(sync_client=True) as client:
        ours = _ours(workspace, client)
        for automation in ours:
            client.delete_automation(automation.id)
    _save_blocks(workspace, Ways())
    return {automation.name: "removed" for automation in ours}


def try_alerts(workspace: Path) -> str:
    """Return the name of a run on the server that is Failed from its beginning, so that whoever is to be told is told."""
    state: State[Any] = Failed(message="a trial of the alerts: nothing has failed")
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(compress, name="trial of the alerts", tags=[tag_of(workspace)])
        client.set_flow_run_state(made.id, state, force=True)
        return made.name


def _subject(workspace: Path, client: SyncPrefectClient) -> Subject:
    page = str(client.api_url).rstrip("/").removesuffix(PAGES)
    return Subject(workspace_id(workspace), str(workspace), page)


def _ours(workspace: Path, client: SyncPrefectClient) -> list[Automation]:
    asked = AutomationFilter(tags=AutomationFilterTags(all_=[TAG, tag_of(workspace)]))
    return client.read_automations(automations=asked)


def _bring(wanted: AutomationCore, there: Automation | None, client: SyncPrefectClient) -> str:
    if there is None:
        client.create_automation(wanted)
        return "made"
    if wanted.model_dump(include=COMPARED) == there.model_dump(include=COMPARED):
        return "unchanged"
    client.update_automation(there.id, wanted)
    return "changed"


# Blocks: where Prefect keeps addresses, encrypted


def _save_blocks(workspace: Path, ways: Ways) -> dict[str, UUID]:
    """Return kind of action -> block, after each way has one and what is no way has none."""
    name = f"compactlm-{workspace_id(workspace)}"
    headers: Any = {"Content-Type": "application/json"}
    # Prefect has no block for a mail server. This one hands any address to Apprise, which sends mail.
    wanted: dict[str, tuple[type[Block], str, dict[str, Any]]] = {
        "call-webhook": (Webhook, ways.webhook, {"headers": headers, "allow_private_urls": True}),
        "send-notification": (SlackWebhook, ways.mail, {}),
    }
    saved: dict[str, UUID] = {}
    for action, (block, address, settings) in wanted.items():
        if address:
            made = block.model_validate({"url": SecretStr(address), **settings})
            saved[action] = UUID(str(made.save(name, overwrite=True)))  # no coroutine: there is no event loop here
        else:
            with suppress(ValueError):  # there is none
                block.delete(name)
    return saved


def _automation(alert: Alert, subject: Subject, blocks: Mapping[str, UUID], tag: str) -> AutomationCore:
    heading, text = mail(alert, subject)
    said: dict[str, dict[str, str]] = {
        "call-webhook": {"payload": payload(alert, subject)},
        "send-notification": {"subject": heading, "body": text},
    }
    related = alert["trigger"].get("match_related") or []
    of_workspace = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
    trigger = {**alert["trigger"], "match_related": [*(related if isinstance(related, list) else [related]), of_workspace]}
    content = {
        "name": f"compactlm {subject.workspace}: {alert['name']}",
        "description": alert["description"],
        "tags": [TAG, tag],
        "enabled": True,
        "trigger": trigger,
        "actions": [{"type": kind, "block_document_id": block, **said[kind]} for kind, block in blocks.items()],
    }
    try:
        return AutomationCore.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ParamsError(f"the alert {alert['name']!r}: {where}: {first['msg']}; see infra/automations for some") from None


def _ways_of(automation: Automation) -> str:
    words = {"call-webhook": "webhook", "send-notification": "e-mail"}
    ways = [words.get(action.type, action.type) for action in automation.actions]
    return ", ".join(ways) + ("" if automation.enabled else "; switched off")


def host_of(address: str) -> str:
    """Return of an address with a secret what may be shown."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
