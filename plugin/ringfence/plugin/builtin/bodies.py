"""The body of one request as it comes in over ASGI: bounded in size and in time, read only when somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from ringfence.plugin.errors import BODY_CUT_SHORT, BODY_TOO_LARGE, GateError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LINGER_S: Final = 5.0
_MAX_DIGITS: Final = 15


class DisconnectedError(Exception):
    """The caller went away; there is nobody to answer."""


class Incoming:
    """A request's body, which may take `timeout_s` from now on. `ended` says whether all of it has come in."""

    def __init__(self, receive: Receive, *, timeout_s: float) -> None:
        self.ended = False
        self._receive = receive
        self._timeout_s = timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s

    async def read(self, announced: list[str], limit: int, take: Callable[[int], None]) -> bytes:
        """The body, of at most `limit` bytes. `announced` are its Content-Length fields; `take` is told of every chunk.

        Raises `gateway.body_too_large`, `gateway.body_cut_short`, what `take` raises, and `DisconnectedError`.
        """
        # Compared by length first: Python refuses to parse a number of thousands of digits.
        if any(size.isdecimal() and (len(size) > _MAX_DIGITS or int(size) > limit) for size in announced):
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self.ended:
                    chunk = await self._next()
                    if len(body) + len(chunk) > limit:
                        raise _too_large(limit)
                    take(len(chunk))
                    body += chunk
        except TimeoutError:
            raise GateError(
                BODY_CUT_SHORT, f"The body did not arrive within {self._timeout_s:g} s.", field="body"
            ) from None
        return bytes(body)

    async def discard(self) -> None:
        """Drops what is still to come, for `LINGER_S` at most.

        A client that is still sending would lose the answer when its connection is closed.
        """
        until = min(self._deadline, asyncio.get_running_loop().time() + LINGER_S)
        try:
            async with asyncio.timeout_at(until):
                while not self.ended:
                    await self._next()
        except (TimeoutError, DisconnectedError):
            return

    async def disconnected(self) -> None:
        """Waits until the caller goes away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        self.ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk


def _too_large(limit: int) -> GateError:
    return GateError(
        BODY_TOO_LARGE,
        f"The body has more than {limit} bytes.",
        field="body",
        hint="Send less, or have the operator raise limits.body_bytes.",
    )
