"""The built-in gateway as an ASGI 3 application: HTTP in, calls of a gate, HTTP out.

A job's body is read only after its header has authenticated it, and only then does it take a slot. A hello is small,
and takes a slot of a pool of its own once it is there: strangers hold nothing that callers with a session need.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from ringfence import httpsig
from ringfence.errors import INTERNAL, RingfenceError
from ringfence.plugin.answers import refusal
from ringfence.plugin.api import FACTORS_PATH, HEALTH_PATH, JOBS_PATH, MSGPACK, SESSIONS_PATH
from ringfence.plugin.builtin.bodies import DisconnectedError, Incoming, Message, Receive
from ringfence.plugin.builtin.capacity import ByteBudget, Slots
from ringfence.plugin.builtin.connections import AUTHENTICATED
from ringfence.plugin.builtin.port import GateDoor
from ringfence.plugin.errors import HEADERS_MALFORMED, METHOD_UNKNOWN, NOT_FOUND, GateError
from ringfence.plugin.hosts.port import Answer, Inbound, Unseen
from ringfence.plugin.settling import RefusedError
from ringfence.plugin.signin.app import METHODS as SIGN_IN_PATHS

Scope = Message
Send = Callable[[Message], Awaitable[None]]
Result = TypeVar("Result")

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HELLO_LIMIT: Final = 64 * 1024
HELLO_TIMEOUT_S: Final = 5.0
NO_STORE: Final = (("cache-control", "no-store"),)
NOTHING: Final[Mapping[str, Callable[[], bytes]]] = MappingProxyType({})
_METHODS: Final = {SESSIONS_PATH: "POST", JOBS_PATH: "POST", FACTORS_PATH: "POST", HEALTH_PATH: "GET"}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the application holds at most: jobs and openings under way, and bytes of a body and of all bodies."""

    jobs: int
    openings: int
    body_bytes: int
    bodies_bytes: int
    body_timeout_s: float


class GatewayApp:
    """Serves one gate within `capacity`."""

    def __init__(
        self,
        gate: GateDoor,
        capacity: Capacity,
        published: Mapping[str, Callable[[], bytes]] = NOTHING,
        sign_in: Application | None = None,
    ) -> None:
        """`published` are documents that anybody may GET, by their paths; `sign_in` serves the paths of browsers."""
        self._sign_in = sign_in
        self._gate = gate
        self._published = published
        self._body_bytes = min(capacity.body_bytes, capacity.bodies_bytes)
        self._body_timeout_s = capacity.body_timeout_s
        self._jobs = Slots(capacity.jobs)
        self._openings = Slots(capacity.openings)
        self._bytes = ByteBudget(capacity.bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._sign_in is not None and _path(scope) in SIGN_IN_PATHS:
            await self._sign_in(scope, receive, send)
            return
        body_timeout_s = self._body_timeout_s
        if _path(scope) != JOBS_PATH:
            body_timeout_s = min(body_timeout_s, HELLO_TIMEOUT_S)
        incoming = Incoming(receive, timeout_s=body_timeout_s)
        try:
            answer = await self._answer(scope, incoming)
        except DisconnectedError:
            return
        except RefusedError as refused:
            answer = _refused(refused)
        except RingfenceError as error:
            answer = refusal(error)
        except Exception:  # noqa: BLE001 - a bug denies like anything else, and in the same words
            answer = refusal(GateError(INTERNAL, "The decision failed in a way that it should not; it denies."))
        await incoming.discard()
        await _send(send, answer, last=not incoming.ended)

    async def _answer(self, scope: Scope, incoming: Incoming) -> Answer:
        path = _path(scope)
        method = "GET" if path in self._published else _METHODS.get(path)
        if method is None or scope.get("query_string"):
            raise GateError(NOT_FOUND, "There is nothing at this path.", field="path", hint="The API is at /v1/.")
        if scope["method"] != method:
            raise GateError(METHOD_UNKNOWN, f"This path takes {method} only.", field="method")
        if path == HEALTH_PATH:
            return Answer(204, headers=NO_STORE)
        if path in self._published:
            return Answer(200, headers=(("content-type", "application/json"),), body=self._published[path]())
        headers = _headers(scope)
        source = scope["client"][0] if scope.get("client") else "unix"
        head = Inbound(httpsig.Target(method, _host(headers), path), headers, source, "", Unseen.HIDDEN)
        if path == SESSIONS_PATH:
            return _fine(await self._open(head, incoming))
        if path == FACTORS_PATH:
            return _fine(await self._add_factors(head, incoming))
        await self._gate.screen(head)
        authenticated = scope.get("extensions", {}).get(AUTHENTICATED)
        if authenticated is not None:
            authenticated["call"]()
        return _fine(await self._submit(head, incoming))

    async def _open(self, head: Inbound, incoming: Incoming) -> bytes:
        body = await incoming.read(_announced(head), HELLO_LIMIT, lambda _size: None)
        with self._openings.held():
            return await _while_connected(incoming, self._gate.open_session(body, source=head.source))

    async def _add_factors(self, head: Inbound, incoming: Incoming) -> bytes:
        body = await incoming.read(_announced(head), HELLO_LIMIT, lambda _size: None)
        with self._openings.held():
            work = self._gate.add_factors(replace(head, body=body))
            return msgspec.msgpack.encode(await _while_connected(incoming, work))

    async def _submit(self, head: Inbound, incoming: Incoming) -> bytes:
        with self._jobs.held(), self._bytes.account() as take:
            body = await incoming.read(_announced(head), self._body_bytes, take)
            whole = replace(head, body=body)
            return msgspec.msgpack.encode(await _while_connected(incoming, self._gate.submit(whole)))


def _announced(head: Inbound) -> list[str]:
    return [value for name, value in head.headers if name == "content-length"]


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


async def _while_connected(incoming: Incoming, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the caller goes away."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(incoming.disconnected())
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


def _fine(body: bytes) -> Answer:
    return Answer(200, headers=(("content-type", MSGPACK), *NO_STORE), body=body)


def _refused(refused: RefusedError) -> Answer:
    finished = refused.finished
    return refusal(
        refused.error,
        decision_id=refused.decision_id,
        trace=refused.trace,
        receipt=finished.receipt if finished else b"",
        signature=finished.signature if finished else b"",
    )


async def _send(send: Send, answer: Answer, *, last: bool) -> None:
    headers = [(b"content-length", str(len(answer.body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers]
    if last:
        # What is left of the body is nobody's next request.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
