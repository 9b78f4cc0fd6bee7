"""Who may tell us that an alias was moved: a table of deliveries, and the receiver over real HTTP."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tasks.promotion.webhook import HEADERS, Doorkeeper, Receiver, describe_event, signature

SECRET = "a secret of sixteen characters"
BODY = json.dumps(
    {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "data": {"name": "toy", "alias": "champion", "version": "7"},
    }
).encode()
NOW = 1_800_000_000


def headers(body: bytes = BODY, at: object = NOW, delivery: str = "d1", secret: str = SECRET) -> dict[str, str]:
    return dict(zip(HEADERS, (signature(secret, delivery, str(at), body), str(at), delivery), strict=True))


REFUSED = {
    "another secret": (headers(secret="another secret, also long"), BODY, "the signature"),
    "no signature": (headers() | {HEADERS[0]: ""}, BODY, "the signature"),
    "no headers": ({}, BODY, "the signature"),
    "signature of another form": (headers() | {HEADERS[0]: "ümläut"}, BODY, "the signature"),
    "another body": (headers(), BODY.replace(b"7", b"8"), "the signature"),
    "another time": (headers() | {HEADERS[1]: str(NOW + 1)}, BODY, "the signature"),
    "another delivery": (headers() | {HEADERS[2]: "d2"}, BODY, "the signature"),
    "six minutes old": (headers(at=NOW - 360), BODY, "sent at"),
    "from the future": (headers(at=NOW + 360), BODY, "sent at"),
    "no time": (headers(at="soon"), BODY, "sent at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_mlflow_did_not_send_now_is_refused(case: str) -> None:
    given, body, words = REFUSED[case]
    assert words in str(Doorkeeper(SECRET).refusal(given, body, NOW))


def test_a_delivery_counts_once() -> None:
    door = Doorkeeper(SECRET)
    assert door.refusal(headers(), BODY, NOW) is None
    assert door.refusal(headers(), BODY, NOW + 1) == "delivery d1 came before"
    assert door.refusal(headers(delivery="d2"), BODY, NOW + 1) is None


def test_the_signature_is_the_one_mlflow_makes() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert signature(SECRET, "d", "1", BODY) == _generate_hmac_signature(SECRET, "d", "1", BODY.decode())


def test_an_event_is_told_in_words() -> None:
    assert describe_event(BODY) == "model_version_alias created: toy champion 7"


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def receiver(heard: list[str]) -> Iterator[Receiver]:
    with Receiver("127.0.0.1", 0, SECRET, heard.append) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(receiver: Receiver, path: str, body: bytes | None = None, given: dict[str, str] | None = None) -> tuple[int, str]:
    address = f"http://127.0.0.1:{receiver.server_address[1]}{path}"
    request = urllib.request.Request(address, data=body, headers=given or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_receiver_takes_what_is_genuine_and_shows_what_was_found(
    receiver: Receiver, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.promotion.webhook.time.time", lambda: NOW)
    assert ask(receiver, "/", BODY, headers())[0] == 202
    assert ask(receiver, "/", BODY, headers())[0] == 403
    assert ask(receiver, "/", BODY, headers(secret="another secret, also long", delivery="d3"))[0] == 403
    assert ask(receiver, "/", b"x" * 100_001, headers())[0] == 413
    assert heard == ["model_version_alias created: toy champion 7"]
    assert ask(receiver, "/health")[0] == 503  # not checked yet
    receiver.faults = []
    assert ask(receiver, "/health") == (200, '{"differences": []}')
    receiver.facts = lambda: {"last_good_run": None}
    assert ask(receiver, "/health") == (200, '{"differences": [], "last_good_run": null}')
    receiver.faults = ["alias champion points at version 7; the log says version 2"]
    assert ask(receiver, "/health")[0] == 503
    assert ask(receiver, "/")[0] == 404
