"""The built-in gateway as an ASGI 3 application: HTTP in, `Gate` calls, HTTP out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from ringfence import httpsig
from ringfence.errors import RingfenceError
from ringfence.plugin.api import HEALTH_PATH, JOBS_PATH, MSGPACK, PROBLEM, SESSIONS_PATH, Problem
from ringfence.plugin.errors import (
    BODY_CUT_SHORT,
    BODY_TOO_LARGE,
    GATEWAY_BUSY,
    HEADERS_MALFORMED,
    METHOD_UNKNOWN,
    NOT_FOUND,
    GateError,
)
from ringfence.plugin.gate import Gate, RefusedError
from ringfence.plugin.requests import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO_LIMIT: Final = 64 * 1024
_MAX_DIGITS: Final = 15
_METHODS: Final = {SESSIONS_PATH: "POST", JOBS_PATH: "POST", HEALTH_PATH: "GET"}


class DisconnectedError(Exception):
    """The caller went away; there is nobody to answer."""


class GatewayApp:
    """Serves one gate. Bodies have at most `body_bytes` and arrive within `body_timeout_s`."""

    def __init__(self, gate: Gate, *, body_bytes: int, body_timeout_s: float, concurrent: int) -> None:
        self._gate = gate
        self._body_bytes = body_bytes
        self._body_timeout_s = body_timeout_s
        self._free = concurrent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, media, body = await self._answer(scope, receive)
        except DisconnectedError:
            return
        except RefusedError as refused:
            status, media, body = _problem(refused)
        except RingfenceError as error:
            status, media, body = _problem(RefusedError(error))
        await _send(send, status, media, body)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        path = _path(scope)
        method = _METHODS.get(path)
        if method is None or scope.get("query_string"):
            raise GateError(NOT_FOUND, "There is nothing at this path.", field="path", hint="The API is at /v1/.")
        if scope["method"] != method:
            raise GateError(METHOD_UNKNOWN, f"This path takes {method} only.", field="method")
        if path == HEALTH_PATH:
            return 204, "", b""
        if self._free <= 0:
            raise GateError(GATEWAY_BUSY, "As many requests as allowed are under way.", hint="Try again in a second.")
        self._free -= 1
        try:
            headers = _headers(scope)
            target = httpsig.Target(method, _host(headers), path)
            source = scope["client"][0] if scope.get("client") else "unix"
            limit = HELLO_LIMIT if path == SESSIONS_PATH else self._body_bytes
            body = await self._body(headers, receive, limit)
            if path == SESSIONS_PATH:
                return 200, MSGPACK, await _while_connected(receive, self._gate.open_session(body, source=source))
            request = Request(target, headers, body, source)
            answer = await _while_connected(receive, self._gate.submit(request))
            return 200, MSGPACK, msgspec.msgpack.encode(answer)
        finally:
            self._free += 1

    async def _body(self, headers: list[tuple[str, str]], receive: Receive, limit: int) -> bytes:
        announced = [value for name, value in headers if name == "content-length"]
        # Compared by length first: Python refuses to parse a number of thousands of digits.
        if any(size.isdecimal() and (len(size) > _MAX_DIGITS or int(size) > limit) for size in announced):
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise DisconnectedError
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise GateError(
                BODY_CUT_SHORT, f"The body did not arrive within {self._body_timeout_s:g} s.", field="body"
            ) from None


def _headers(scope: Scope) -> list[tuple[str, str]]:
    try:
        return [(name.decode("ascii").lower(), value.decode("ascii")) for name, value in scope["headers"]]
    except UnicodeDecodeError:
        raise GateError(HEADERS_MALFORMED, "A header field holds a byte that is not ASCII.", field="headers") from None


def _path(scope: Scope) -> str:
    # As it was sent, before any decoding: what is routed is exactly what was signed.
    raw: bytes | None = scope.get("raw_path")
    return str(scope["path"]) if raw is None else raw.decode("ascii", "replace")


def _host(headers: list[tuple[str, str]]) -> str:
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) != 1:
        raise GateError(HEADERS_MALFORMED, "There must be exactly one Host field.", field="host")
    return hosts[0]


async def _while_connected(receive: Receive, work: Any) -> Any:
    """The result of `work`, which is cancelled when the caller goes away."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise DisconnectedError
    finally:
        for task in (working, watching):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RingfenceError, RefusedError):
                await task


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _problem(refused: RefusedError) -> tuple[int, str, bytes]:
    error = refused.error
    finished = refused.finished
    problem = Problem(
        code=error.code.name,
        message=error.message,
        status=error.code.kind.http,
        field=error.field,
        hint=error.hint,
        decision_id=refused.decision_id,
        trace=refused.trace,
        receipt=finished.receipt if finished else b"",
        signature=finished.signature if finished else b"",
    )
    return problem.status, PROBLEM, msgspec.json.encode(problem)


def _too_large(limit: int) -> GateError:
    return GateError(
        BODY_TOO_LARGE,
        f"The body has more than {limit} bytes.",
        field="body",
        hint="Send less, or have the operator raise limits.body_bytes.",
    )


async def _send(send: Send, status: int, media: str, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    if media:
        headers.append((b"content-type", media.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
