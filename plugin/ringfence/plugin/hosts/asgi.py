"""ASGI middleware: the decision in the process of a Python service (Starlette, FastAPI, anything that speaks ASGI 3).

The body is held, up to a bound, and shown with the request, so its digest is verified before the application sees its
first byte. Where a service takes larger bodies, `body = "hidden"` streams them unseen: the decision then knows that
nobody verified them. Source: ASGI 3.0, HTTP and WebSocket message formats.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import msgspec

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
from ringfence.plugin.hosts.certificates import read_certificate
from ringfence.plugin.hosts.errors import (
    BODY_LATE,
    BODY_TOO_LARGE,
    FIELDS_MALFORMED,
    UPGRADE_REFUSED,
    HostError,
)
from ringfence.plugin.hosts.exemptions import Exemptions, is_exempt
from ringfence.plugin.hosts.fields import INITIALS, Fields, set_by_others, single
from ringfence.plugin.hosts.hops import UNIX, Hops, client_address
from ringfence.plugin.hosts.port import NO_CHANNEL, Answer, Channel, Gatekeeper, Inbound, Unseen
from ringfence.plugin.hosts.refusals import Desk, refusal
from ringfence.plugin.signin import cookies

_INITIALS: Final = INITIALS.encode()
_SESSION: Final = cookies.SESSION.encode()
_DENY_WEBSOCKET: Final = 1008  # RFC 6455 section 7.4.1, policy violation; before the handshake servers answer 403


class AsgiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the middleware holds and waits for. `body` is "verify" to hold bodies of at most `body_bytes` and show them,
    or "hidden" to pass them on unseen."""

    hops: tuple[str, ...] = ()
    exemptions: Exemptions = Exemptions()
    body: Literal["verify", "hidden"] = "verify"
    body_bytes: Annotated[int, msgspec.Meta(ge=0, le=1024 * 1024 * 1024)] = 1024 * 1024
    body_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0


DEFAULTS: Final = AsgiSettings()


class RingfenceMiddleware:
    """Asks `gatekeeper` about every HTTP request for `upstream`, the service's configured name.

    An allowed request reaches `app` with the answer's fields, without any field of the caller's that Ringfence or a
    proxy sets, and with the client's address in `scope["client"]`. Any other never reaches it. WebSockets are refused
    unless their path is exempt. Use it as the outermost middleware.
    """

    def __init__(self, app: App, gatekeeper: Gatekeeper, *, upstream: str, settings: AsgiSettings = DEFAULTS) -> None:
        self._app = app
        self._desk = Desk(gatekeeper, concurrent=settings.concurrent, timeout_s=settings.timeout_s)
        self._upstream = upstream
        self._settings = settings
        self._hops = Hops.of(settings.hops)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
        elif kind == "http":
            await self._http(scope, receive, send)
        else:
            await self._other(scope, receive, send)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        body: bytes | Unseen = Unseen.HIDDEN
        try:
            target, headers = read_scope(scope)
            source = self._source(scope, headers)
            exempt = is_exempt(target, headers, self._settings.exemptions)
            if not exempt and self._settings.body == "verify":
                body = await self._hold(headers, scope.get("http_version", ""), receive)
            if exempt:
                answer = Answer(200)
            else:
                shown = body or Unseen.ABSENT
                inbound = Inbound(target, headers, source, self._upstream, shown, _channel(scope))
                answer = await self._desk.decide(inbound)
        except RingfenceError as error:
            answer = refusal(error)
        except DisconnectedError:
            return
        if answer.status != 200:
            await send_refusal(answer, send)
            return
        await self._app(
            _authorised(scope, source, answer),
            receive if isinstance(body, Unseen) else _Replayed(body, receive),
            send,
        )

    def _source(self, scope: Message, headers: Fields) -> str:
        client = scope.get("client")
        peer = client[0] if client else UNIX
        if not self._hops.networks:
            return str(peer)
        return client_address(peer, [value for name, value in headers if name == "x-forwarded-for"], self._hops)

    async def _hold(self, headers: Fields, version: str, receive: Receive) -> bytes:
        most = self._settings.body_bytes
        announced = single(headers, "content-length") or "0"
        if not (announced.isascii() and announced.isdigit() and len(announced) <= 18):
            raise HostError(FIELDS_MALFORMED, "The length is no number.", field="content-length")
        if int(announced) > most:
            raise _too_large(most)
        # Without framing the server has the empty body at hand; in HTTP/2 and with a coding it may be yet to come.
        unframed = (
            announced == "0" and version[:1] == "1" and not any(name == "transfer-encoding" for name, _ in headers)
        )
        message = await receive() if unframed else await self._in_time(receive)
        body: bytes = part_of(message)
        if not message.get("more_body", False) and len(body) <= most:
            return body
        return await self._rest(bytearray(body), most, receive)

    async def _rest(self, held: bytearray, most: int, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while len(held) <= most:
                    message = await receive()
                    held += part_of(message)
                    if not message.get("more_body", False) and len(held) <= most:
                        return bytes(held)
        except TimeoutError:
            raise _late(self._settings.body_timeout_s) from None
        raise _too_large(most)

    async def _in_time(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await receive()
        except TimeoutError:
            raise _late(self._settings.body_timeout_s) from None

    async def _other(self, scope: Message, receive: Receive, send: Send) -> None:
        """A WebSocket, or what ASGI may come to know: nothing that is not exempt."""
        try:
            target, headers = read_scope({**scope, "method": "GET"})
            if is_exempt(target, headers, self._settings.exemptions):
                answer = Answer(200)
            else:
                answer = refusal(HostError(UPGRADE_REFUSED, "WebSockets are decided on by nobody.", field="upgrade"))
            source = self._source(scope, headers)
        except RingfenceError as error:
            answer = refusal(error)
        if answer.allowed:
            await self._app(_authorised(scope, source, answer), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _DENY_WEBSOCKET, "reason": ""})


class _Replayed:
    """The held body as one message; after it, what the server has to say."""

    __slots__ = ("_body", "_receive", "_told")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body = body
        self._receive = receive
        self._told = False

    async def __call__(self) -> Message:
        if self._told:
            return await self._receive()
        self._told = True
        return {"type": "http.request", "body": self._body, "more_body": False}


def _without_session(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = pair
    return (name, cookies.without_session(value.decode("latin-1")).encode("latin-1")) if name == b"cookie" else pair


def _authorised(scope: Message, source: str, answer: Answer) -> Message:
    headers = [
        pair for pair in scope["headers"] if pair[0][0] not in _INITIALS or not set_by_others(pair[0].decode("ascii"))
    ]
    if any(name == b"cookie" and _SESSION in value for name, value in headers):
        headers = [pair for pair in map(_without_session, headers) if pair != (b"cookie", b"")]
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in answer.forward]
    passed = dict(scope)
    passed["headers"] = headers
    if source != UNIX and source != (scope.get("client") or ("",))[0]:
        passed["client"] = (source, 0)
    return passed


def _channel(scope: Message) -> Channel:
    """From the ASGI TLS extension; none where the server does not offer it."""
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if extensions else None
    chain = tls.get("client_cert_chain") if tls else None
    return read_certificate(chain[0]) if chain else NO_CHANNEL


def _too_large(most: int) -> HostError:
    return HostError(BODY_TOO_LARGE, f"The body has more than {most} bytes.", field="body", hint="Send less at once.")


def _late(timeout_s: float) -> HostError:
    return HostError(BODY_LATE, f"The body did not arrive within {timeout_s} s.", field="body")
