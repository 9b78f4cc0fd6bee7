"""What the server of a model does with bodies that do not come, and with a model that is broken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from tokenizers import Tokenizer, models, pre_tokenizers

from tasks.using import server
from tasks.using.classifier import Classifier
from tasks.using.protocol import Limits, RequestError
from tasks.using.server import Service, app_of

HTTP = {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"content-type", b"application/json")]}


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    monkeypatch.setattr(server, "BODY_SECONDS", 0.01)
    for receive, words in ((nothing, "the body did not come within 0.01 s"), (gone, "did not come whole")):
        with pytest.raises(RequestError, match=words):
            asyncio.run(server._body(Request(HTTP, receive), 10))


def test_a_body_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def more() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    monkeypatch.setattr(server, "DROPPED_BYTES", 1_000)
    with pytest.raises(RequestError, match="more than 10 bytes"):
        asyncio.run(server._body(Request(HTTP, more), 10))


@pytest.mark.parametrize(("logit", "status"), [(0.5, 200), (float("nan"), 500)])
def test_a_broken_model_is_500_with_a_sentence(logit: float, status: int) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def logits(tokens: Any) -> Any:
        return np.full((len(tokens), 2), logit, dtype=np.float32)

    app = app_of(Service(Classifier(["no", "yes"], None, tokenizer, logits), Limits()))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"inputs": ["film"]}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**HTTP, "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80)}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == status
    answer = json.loads(sent[1]["body"])
    if status == 200:
        assert answer == {"predictions": [{"label": "no", "score": 0.5}]}
    else:
        assert answer["error_code"] == "INTERNAL_ERROR"
        assert "its weights are broken" in answer["message"]
