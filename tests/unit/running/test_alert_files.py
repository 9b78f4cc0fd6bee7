"""Alerts as files: each is one that Prefect takes, none forgets a state of ours, and no address with a secret is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from apprise import Apprise

from tasks.errors import ParamsError, ResourceError, UserError
from tasks.running import alerts
from tasks.running.alerts import Alert, Subject, mail, mail_address, payload, read_alerts, secret, webhook_address

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "infra" / "automations"
SUBJECT = Subject("0a1b2c3d", '/home/ada/"my" {{ project }}', "http://127.0.0.1:4200")
ALERT = Alert(name="late", description="A run's late", trigger={})


def test_every_shipped_alert_is_one_of_prefect() -> None:
    from prefect.events.schemas.automations import EventTrigger

    found = read_alerts(FOLDER)
    assert [alert["name"] for alert in found] == ["audit failed", "compress failed", "drift", "late", "silent", "stuck"]
    for alert in found:
        assert EventTrigger.model_validate(alert["trigger"]).model_dump(mode="json", include=set(alert["trigger"]))


def test_no_name_of_a_state_that_compress_ends_with_is_forgotten() -> None:
    ours = set(re.findall(r'Completed\(name="(\w+)"', (ROOT / "flows/compress.py").read_text(encoding="utf-8")))
    ends = {f"prefect.flow-run.{name}" for name in (*ours, "Completed", "Failed", "Crashed", "TimedOut", "Cancelled")}
    assert ours == {"NoChange", "NotRecorded"}
    for alert in read_alerts(FOLDER):
        if alert["name"] in ("stuck", "silent"):
            assert ends <= set(alert["trigger"]["expect"]), alert["name"]


def test_what_is_told_is_json_whatever_is_in_it() -> None:
    message = 'distill@r1: "x" {{ 7 * 7 }}\nand </b> more'
    run = SimpleNamespace(id="1-2", name="red-fox", state=SimpleNamespace(name="Failed", message=message))
    known = {"flow": SimpleNamespace(name="compress"), "flow_run": run}
    fill = jinja2.Environment(autoescape=False).from_string
    said = json.loads(fill(payload(ALERT, SUBJECT)).render(known))
    assert (said["folder"], said["message"], said["state"]) == (SUBJECT.folder, message, "Failed")
    assert said["page"] == "http://127.0.0.1:4200/runs/flow-run/1-2"
    assert said["text"] == f'late ("my" {{{{ project }}}} 0a1b2c3d): compress red-fox is Failed: {message} {said["page"]}'
    heading, text = (fill(part).render(known) for part in mail(ALERT, SUBJECT))
    assert heading == 'late ("my" {{ project }} 0a1b2c3d)'
    assert text.startswith("A run's late.\n\ncompress red-fox is Failed: distill@r1")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # Apprise imports it
@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("smtps://me%40x.org:p%2Fw@mail.example.org", "mailtos://me%40x.org:p%2Fw@mail.example.org:465/"),
        ("smtp+starttls://me:pw@mail.example.org", "mailtos://me:pw@mail.example.org:587/"),
        ("smtp://127.0.0.1:25?from=ci@example.org", "mailto://127.0.0.1:25/"),
    ],
)
def test_a_mail_server_is_one_of_apprise(server: str, expected: str) -> None:
    address = mail_address(server, "team@example.org")
    assert address.startswith(expected)
    mailer = Apprise.instantiate(address)
    assert mailer is not None
    assert [to for _, to in mailer.targets] == ["team@example.org"]
    assert mailer.smtp_host == ("127.0.0.1" if "127" in server else "mail.example.org")


@pytest.mark.parametrize("server", ["", "mail.example.org", "https://x.org", "smtps://me:top-secret@", "smtps://h?cc=top-secret"])
def test_what_is_no_mail_server_is_refused_and_not_shown(server: str) -> None:
    with pytest.raises(UserError, match=r"COMPACTLM_ALERT_SMTP: is no mail server; write smtp://") as refused:
        mail_address(server, "team@example.org")
    assert "top-secret" not in str(refused.value)
    with pytest.raises(UserError, match="--email 'team': is no address"):
        mail_address("smtps://mail.example.org", "team")


def test_a_webhook_has_an_address_of_http_and_is_not_shown() -> None:
    assert webhook_address("https://hooks.example.org/T0KEN", "--webhook") == "https://hooks.example.org/T0KEN"
    for address in ("hooks.example.org/T0KEN", "ftp://x/T0KEN", "https:///T0KEN", "http://x:99999999/T0KEN"):
        with pytest.raises(UserError, match="--webhook: is no address of a webhook") as refused:
            webhook_address(address, "--webhook")
        assert "T0KEN" not in str(refused.value)


def test_a_secret_is_of_the_environment_or_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://x.org/1\n", encoding="utf-8")
    from_file = {alerts.WEBHOOK + alerts.FILE: str(tmp_path / "hook")}
    assert secret(alerts.WEBHOOK, from_file) == "https://x.org/1"
    assert secret(alerts.WEBHOOK, {**from_file, alerts.WEBHOOK: "https://x.org/2"}) == "https://x.org/2"
    assert secret(alerts.WEBHOOK, {}) == ""
    with pytest.raises(ResourceError, match=r"COMPACTLM_ALERT_WEBHOOK_FILE: .* cannot be read"):
        secret(alerts.WEBHOOK, {alerts.WEBHOOK + alerts.FILE: str(tmp_path / "no")})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "has list; an alert has the keys name, description, trigger and no other"),
        ("name: a\ndescription: b\n", "has description, name; an alert"),
        ("name: '{{ a }}'\ndescription: b\ntrigger: {}\n", "name: '{{ a }}' is no line of text without braces"),
        ("name: a\ndescription: b\ntrigger: late\n", "trigger: 'late' is no trigger of Prefect"),
    ],
)
def test_a_file_that_is_no_alert_is_named(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ParamsError, match="no file"):
        read_alerts(tmp_path)
    (tmp_path / "one.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ParamsError) as refused:
        read_alerts(tmp_path)
    assert f"{tmp_path / 'one.yaml'}: {words}" in str(refused.value)


def test_two_alerts_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("name: a\ndescription: b\ntrigger: {}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"one.yaml: name: 'a' is that of another file"):
        read_alerts(tmp_path)
