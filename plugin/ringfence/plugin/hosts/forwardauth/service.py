"""The forward-auth server: routes a host's questions to the decision core, and public documents to whoever may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.errors import UPSTREAM_UNKNOWN, HostError
from ringfence.plugin.hosts.exemptions import Exemptions, is_exempt
from ringfence.plugin.hosts.forwardauth.reading import (
    AUTH,
    AUTH_REQUEST,
    ENVOY,
    read_envoy,
    read_question,
    upstream_of,
)
from ringfence.plugin.hosts.forwardauth.writing import write_answer, write_auth_request
from ringfence.plugin.hosts.hops import HopNetwork, Hops
from ringfence.plugin.hosts.http1 import Handler, Http1Limits, Http1Protocol, HttpReply, HttpRequest
from ringfence.plugin.hosts.port import Answer, Gatekeeper, Inbound
from ringfence.plugin.hosts.refusals import Desk, refusal
from ringfence.plugin.hosts.unix_peers import PeerSocket

NO_HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType({})


class ForwardAuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A forward-auth server: its socket, whom its hosts may name as client, and its bounds."""

    socket: PeerSocket
    hops: tuple[HopNetwork, ...] = ()
    exemptions: Exemptions = Exemptions()
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0
    http: Http1Limits = Http1Limits()


class ForwardAuth:
    """Answers the questions of nginx, Caddy and Envoy HTTP about any upstream, by its configured name.

    `further` handlers serve other paths of the same server by their prefix: AuthZEN, published keys.
    """

    def __init__(
        self, gatekeeper: Gatekeeper, settings: ForwardAuthSettings, *, further: Mapping[str, Handler] = NO_HANDLERS
    ) -> None:
        self._desk = Desk(gatekeeper, concurrent=settings.concurrent, timeout_s=settings.timeout_s)
        self._hops = Hops.of(settings.hops)
        self._exemptions = settings.exemptions
        self._further = further

    async def handle(self, request: HttpRequest) -> HttpReply:
        """The answer to one question; a refusal for whatever cannot be understood."""
        target = request.target
        if target.startswith(AUTH_REQUEST):
            write: Callable[[Answer], HttpReply] = write_auth_request
        else:
            write = write_answer
            for prefix, handler in self._further.items():
                if target.startswith(prefix):
                    return await handler(request)
        try:
            inbound = self._read(request)
        except RingfenceError as error:
            return write(refusal(error))
        if is_exempt(inbound.target, inbound.headers, self._exemptions):
            return write(Answer(200))
        return write(await self._desk.decide(inbound))

    def _read(self, request: HttpRequest) -> Inbound:
        for prefix in (AUTH, AUTH_REQUEST):
            if request.target.startswith(prefix):
                # Caddy leaves a question mark where it drops the caller's query.
                upstream, rest = upstream_of(request.target.removesuffix("?"), prefix)
                if rest:
                    raise HostError(UPSTREAM_UNKNOWN, "Something follows the upstream's name.", field="path")
                return read_question(upstream, request.headers, self._hops)
        if request.target.startswith(ENVOY):
            upstream, rest = upstream_of(request.target, ENVOY)
            return read_envoy(upstream, request.method, rest, request.headers, self._hops)
        raise HostError(UPSTREAM_UNKNOWN, "There is nothing at this path.", field="path")


def document(media: str, body: Callable[[], bytes]) -> Handler:
    """A handler that answers GET with a public document, such as the published keys."""

    async def handle(request: HttpRequest) -> HttpReply:
        if request.method != "GET":
            return HttpReply(404)
        return HttpReply(200, (("content-type", media), ("cache-control", "max-age=60")), body())

    return handle


async def serve(settings: ForwardAuthSettings, handler: Handler) -> asyncio.Server:
    """A started server; whoever started it closes it. Raises `GateError` where it cannot listen."""
    listener, guard = settings.socket.open()
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: Http1Protocol(handler, guard, settings.http), sock=listener)
