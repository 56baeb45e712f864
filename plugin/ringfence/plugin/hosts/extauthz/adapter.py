"""The Envoy adapter: a gRPC service on a Unix socket that asks a `Gatekeeper` about each request.

adapter = ExtAuthz(gatekeeper, settings)
async with adapter.serve():
    ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from ringfence.plugin.hosts.extauthz.answer import write_answer, write_refusal
from ringfence.plugin.hosts.extauthz.channel import Channels
from ringfence.plugin.hosts.extauthz.errors import MALFORMED, MISCONFIGURED, ExtAuthzError
from ringfence.plugin.hosts.extauthz.inbound import Trust, read_check
from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings
from ringfence.plugin.hosts.http2.server import GrpcServer
from ringfence.plugin.hosts.port import Gatekeeper
from ringfence.plugin.signin import cookies

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"


class ExtAuthz:
    """Answers Envoy's checks by `gatekeeper`. Whatever fails here is an error to Envoy, which then denies
    (`failure_mode_allow: false`)."""

    def __init__(self, gatekeeper: Gatekeeper, settings: ExtAuthzSettings) -> None:
        self._gatekeeper = gatekeeper
        self._settings = settings
        self._trust = Trust(frozenset(settings.upstreams), settings.trusted_hops)
        self._channels = Channels(settings.certificates)

    async def check(self, message: bytes) -> bytes:
        """A CheckResponse for a CheckRequest. Raises `ExtAuthzError` where Envoy or its configuration is at fault."""
        try:
            check = read_check(message, self._trust, self._channels.read)
        except ExtAuthzError as error:
            if error.code in (MALFORMED, MISCONFIGURED):
                raise
            return write_refusal(error)
        answer, stripped = await self._gatekeeper.decide(check.inbound), check.stripped
        sent = [value for name, value in check.inbound.headers if name == "cookie"]
        if answer.allowed and any(cookies.SESSION in value for value in sent):
            kept = cookies.without_session("; ".join(sent))
            if kept:
                answer = replace(answer, forward=(*answer.forward, ("cookie", kept)))
            else:
                stripped |= {"cookie"}
        return write_answer(answer, stripped)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[GrpcServer]:
        """Serves at the configured socket while it is entered, then drains: no call under way is lost.

        Raises `grpc_server.listen_failed`. Where another process serves there, this one takes its place, and the other
        one is to be told to end (`GrpcServer.drain`).
        """
        settings = self._settings
        server = GrpcServer(METHOD, self.check, settings.limits, settings.users)
        await server.start(settings.socket, settings.socket_mode)
        try:
            yield server
        finally:
            await server.drain()
