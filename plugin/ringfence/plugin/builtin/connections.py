"""The HTTP connections of the built-in gateway: bounded in number, and in the time that a header may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

AUTHENTICATED: Final = "ringfence.authenticated"
"""The ASGI extension whose `call` says that this request is authenticated."""

HEADER_BYTES: Final = 32 * 1024


class Connection(Protocol):
    """A connection that can be broken off."""

    def abort(self) -> None: ...


class Crowd:
    """At most `limit` connections. Where one more comes, the oldest without an authenticated request goes.

    So strangers push each other out, however slowly they speak, and whoever authenticates stays.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._strangers: dict[Connection, None] = {}
        self._known: set[Connection] = set()

    def enter(self, connection: Connection) -> None:
        """A new connection, which goes itself where every other one is authenticated."""
        self._strangers[connection] = None
        if len(self._strangers) + len(self._known) > self._limit:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()

    def know(self, connection: Connection) -> None:
        """The connection's present request is authenticated."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._known.add(connection)

    def forget(self, connection: Connection) -> None:
        """The connection's request is over; the next may be anybody's."""
        if connection in self._known:
            self._known.remove(connection)
            self._strangers[connection] = None

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        self._strangers.pop(connection, None)
        self._known.discard(connection)


class _GuardedProtocol(H11Protocol):
    """uvicorn's protocol, which has no limit on idle connections and none on the time of a header."""

    def __init__(self, crowd: Crowd, header_timeout_s: float, config: Config, server_state: ServerState, **rest: Any):
        super().__init__(config, server_state, **rest)
        self._crowd = crowd
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None
        self._application = self.app
        self.app = self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._await_header()
        self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._header_came()
        self._crowd.leave(self)

    def abort(self) -> None:
        """Breaks the connection off, whatever is still to be sent."""
        self.transport.abort()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        # A request is served as soon as its header is complete.
        self._header_came()
        scope["extensions"] = {AUTHENTICATED: {"call": lambda: self._crowd.know(self)}}
        try:
            await self._application(scope, receive, send)
        finally:
            self._crowd.forget(self)
            if not self.transport.is_closing():
                self._await_header()

    def _await_header(self) -> None:
        self._header_timer = self.loop.call_later(self._header_timeout_s, self.abort)

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def guarded_protocol(*, limit: int, header_timeout_s: float) -> type[asyncio.Protocol]:
    """The protocol class of a server whose connections share one `Crowd`."""
    crowd = Crowd(limit)

    class Guarded(_GuardedProtocol):
        def __init__(self, config: Config, server_state: ServerState, **rest: Any) -> None:
            super().__init__(crowd, header_timeout_s, config, server_state, **rest)

    return Guarded
