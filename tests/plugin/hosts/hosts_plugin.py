"""A forward-auth server on a stage of its own, which a test can stop and start again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ringfence.config import SocketPath
from ringfence.plugin.hosts.forwardauth.service import NO_HANDLERS, ForwardAuth, ForwardAuthSettings, serve
from ringfence.plugin.hosts.http1 import Handler
from ringfence.plugin.hosts.port import Gatekeeper
from ringfence.plugin.hosts.unix_peers import PeerSocket
from tests.plugin.hosts.hosts_scene import Stage


class Plugin:
    """The server at `folder/auth.sock`."""

    def __init__(
        self, stage: Stage, gatekeeper: Gatekeeper, folder: Path, further: Mapping[str, Handler] = NO_HANDLERS
    ) -> None:
        self.socket = folder / "auth.sock"
        self._stage = stage
        self._settings = ForwardAuthSettings(PeerSocket(SocketPath(self.socket)), timeout_s=1.0)
        self._handler = ForwardAuth(gatekeeper, self._settings, further=further).handle
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        self._server = self._stage.run(serve(self._settings, self._handler))

    def stop(self) -> None:
        """As a killed process: the socket refuses, and what was connected is broken off."""
        assert self._server is not None
        self._stage.run(break_off(self._server))
        self.socket.unlink()


async def break_off(server: asyncio.Server) -> None:
    """Closes a server and every connection of its loop."""
    server.close()
    # Python 3.11 keeps no list of a server's transports; the selector's loop does.
    for transport in list(server.get_loop()._transports.values()):  # type: ignore[attr-defined]  # noqa: SLF001
        transport.abort()
