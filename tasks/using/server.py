"""A model behind HTTP: the scoring protocol of `mlflow models serve`, so that its clients work unchanged.

uvicorn listens, Starlette hands over; texts are answered in a thread beside, one request at a time with all cores.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.errors import CompactlmError, UserError
from tasks.using.classifier import Classifier
from tasks.using.protocol import Limits, RequestError, require_json, texts_of_body
from tasks.using.write import as_shown

BODY_SECONDS: Final = 30.0  # within which a body must have come
END_SECONDS: Final = 5  # which requests have to be answered when the server is to end
DROPPED_BYTES: Final = 64_000_000  # of a body too long are read and thrown away, so that its sender hears why
BACKLOG: Final = 128
CODES: Final = {400: "BAD_REQUEST", 404: "RESOURCE_DOES_NOT_EXIST", 405: "BAD_REQUEST", 415: "BAD_REQUEST"}  # as MLflow says


@dataclass(frozen=True)
class Service:
    """What is served: a classifier, how much a request may ask for, and how params.yaml calls the column of texts."""

    classifier: Classifier
    limits: Limits
    column: str | None = None


def app_of(service: Service) -> Starlette:
    """Return the application: POST /invocations, GET /ping, /health and /version."""
    alone = threading.Lock()
    version = importlib.metadata.version("mlflow")  # which is not imported

    def answers(body: bytes) -> list[dict[str, Any]]:
        texts = texts_of_body(body, service.limits, service.column)
        with alone:
            given, _ = service.classifier.answer_all(texts)
        return [{"label": answer.label, "score": as_shown(answer.score)} for answer in given]

    async def invocations(request: Request) -> Response:
        require_json(request.headers.get("content-type", ""))
        body = await _body(request, service.limits.bytes)
        return _json({"predictions": await run_in_threadpool(answers, body)}, 200)

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def told_version(_: Request) -> Response:
        return Response(version, media_type="application/json")

    routes = [Route("/invocations", invocations, methods=["POST"]), Route("/version", told_version)]
    routes += [Route(path, ping) for path in ("/ping", "/health")]
    return Starlette(routes=routes, exception_handlers={CompactlmError: _refused, HTTPException: _unknown})


async def _body(request: Request, most: int) -> bytes:
    """Return the body of a request; RequestError when it has more bytes than `most`, or does not come."""
    parts, length = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length <= most:
                    parts.append(part)
                elif length > most + DROPPED_BYTES:
                    break
    except ClientDisconnect:
        raise RequestError("the body did not come whole") from None  # which nobody hears
    except TimeoutError:
        raise RequestError(f"the body did not come within {BODY_SECONDS:g} s") from None
    if length > most:
        raise RequestError(f"the body has more than {most:,} bytes, which is the most that is read; send it in parts")
    return b"".join(parts)


async def _refused(_: Request, error: Exception) -> Response:
    """Return a fault as MLflow words it: the client's with 4xx, one of the model with 500."""
    status = error.status if isinstance(error, RequestError) else 500
    return _json({"error_code": CODES.get(status, "INTERNAL_ERROR"), "message": str(error)}, status)


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = f"{request.method} {request.url.path}: there is no such thing; POST /invocations, GET /ping, /health or /version"
    return _json({"error_code": CODES.get(status, "INTERNAL_ERROR"), "message": words}, status)


def _json(value: object, status: int) -> JSONResponse:
    return JSONResponse(value, status_code=status)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, on a free port for 0; UserError where that is not possible."""
    made = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        # Of a socket that does not say TCP asyncio leaves Nagle's algorithm on: 40 ms more for each answer.
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(BACKLOG)
        return made
    except OSError as error:
        if made is not None:
            made.close()
        words = f"--host {host} --port {port}: nothing can listen there ({error.strerror or error}); "
        raise UserError(f"{words}give another port, or --port 0 for a free one") from None


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket as people write it into a client."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve_until_interrupted(service: Service, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, which is raised again when those under way are answered."""
    config = uvicorn.Config(app_of(service), log_level="warning", access_log=False, timeout_graceful_shutdown=END_SECONDS)
    uvicorn.Server(config).run(sockets=[listener])
