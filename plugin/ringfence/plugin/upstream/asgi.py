"""ASGI middleware of an upstream: nothing reaches the application that a gateway has not asserted, body included.

The body is hashed while it arrives, in memory up to a bound and then in a file, and handed on once its digest is the
one that was signed. So an application never acts on a body that was cut short or changed behind the gateway, however
large it is and though the gateway never saw it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.asgi_scope import (
    App,
    DisconnectedError,
    Message,
    Receive,
    Send,
    part_of,
    read_scope,
    send_refusal,
)
from ringfence.plugin.hosts.refusals import refusal
from ringfence.plugin.upstream.bodies import HeldBody
from ringfence.plugin.upstream.desk import AssertionDesk, UpstreamSettings
from ringfence.plugin.upstream.errors import BODY_LATE, UpstreamError

CLAIMS: Final = "ringfence.claims"
"""The key of the scope under which the application finds the verified `Claims`."""


class AssertedMiddleware:
    """Lets HTTP requests through that carry the gateway's assertion; refuses WebSockets and everything else.

    Use it as the outermost middleware: what is decoded or rewritten before it does not match what was asserted.
    """

    def __init__(self, app: App, settings: UpstreamSettings, *, clock: Callable[[], float] = time.time) -> None:
        """Raises `UpstreamError` where the gateway's keys cannot be read."""
        self._app = app
        self._settings = settings
        self._desk = AssertionDesk(settings, clock)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        held = HeldBody(memory_bytes=self._settings.memory_bytes, body_bytes=self._settings.body_bytes)
        try:
            try:
                claims = self._desk.verify(*read_scope(scope))
                await self._hold(held, receive)
                held.verify(claims.content_digest)
            except RingfenceError as error:
                await send_refusal(refusal(error), send)
                return
            except DisconnectedError:
                return
            await self._app({**scope, CLAIMS: claims}, _Released(held, receive), send)
        finally:
            held.close()

    async def _hold(self, held: HeldBody, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while True:
                    message = await receive()
                    await held.add(part_of(message))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise UpstreamError(
                BODY_LATE, f"The body did not arrive within {self._settings.body_timeout_s} s.", field="body"
            ) from None


class _Released:
    """The verified body in messages; after it, what the server has to say."""

    def __init__(self, held: HeldBody, receive: Receive) -> None:
        self._parts: AsyncIterator[bytes] = held.parts()
        self._left = held.size
        self._receive = receive
        self._told = False

    async def __call__(self) -> Message:
        if self._told:
            return await self._receive()
        part = await anext(self._parts)
        self._left -= len(part)
        self._told = self._left <= 0
        return {"type": "http.request", "body": part, "more_body": not self._told}
