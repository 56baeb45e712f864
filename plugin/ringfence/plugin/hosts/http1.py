"""A bounded HTTP/1.1 server over a Unix socket, for hosts that ask by HTTP.

httptools parses, and bounds nothing: it takes a header field of 300 MiB. So a message's header is cut out here first,
within `header_bytes`, and only then parsed, whole. One request of a connection is answered at a time; what is pipelined
behind it waits in a bounded buffer, and in the kernel. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, cast

import httptools
import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.errors import BODY_TOO_LARGE, FIELDS_TOO_LARGE, PROTOCOL_VIOLATED, HostError
from ringfence.plugin.hosts.refusals import refusal
from ringfence.plugin.hosts.unix_peers import PeerGuard

_END: Final = b"\r\n\r\n"
_REASONS: Final = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found"}


class Http1Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one connection may hold, and how long it may take."""

    header_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024)] = 64 * 1024
    body_bytes: Annotated[int, msgspec.Meta(ge=0, le=16 * 1024 * 1024)] = 256 * 1024
    message_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    idle_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, whole: the target as received, fields with lower-case names, in latin-1."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer. Its fields hold neither a length nor `Connection`, which the server sets."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


Handler = Callable[[HttpRequest], Awaitable[HttpReply]]


class HeadParser:
    """Parses heads, one after another: what `parse` is given is one complete head, and nothing else."""

    def __init__(self) -> None:
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._complete = self._keep = False
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        """Called by httptools."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Called by httptools, which forgets at the message's end whether the connection stays open."""
        self._complete = True
        self._keep = self._parser.should_keep_alive()

    def parse(self, head: bytes) -> tuple[str, str, list[tuple[str, str]], int, bool]:
        """Method, target, fields, length of the body that follows, and whether the connection stays open.

        `head` ends with an empty line. Raises `hosts.protocol_violated` for what is not HTTP/1.1, has a transfer coding
        or an upgrade, or a line end that is not CRLF: a second parser might see another message.
        """
        lines = head.count(b"\r\n")
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise _violated("A line ends with something else than CRLF.")
        self._url, self._headers, self._complete = b"", [], False
        # A parser a message: none carries state from one message into the next.
        parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise _violated("The request is not HTTP/1.1, or asks for another protocol.") from error
        if not self._complete or parser.get_http_version() != "1.1":
            raise _violated("The request is not HTTP/1.1.")
        return (
            parser.get_method().decode("latin-1"),
            self._url.decode("latin-1"),
            self._headers,
            _length(self._headers),
            self._keep,
        )


class Http1Protocol(asyncio.Protocol):
    """One connection of a host, served by `handler`; broken off where `guard` does not admit it."""

    def __init__(self, handler: Handler, guard: PeerGuard, limits: Http1Limits) -> None:
        self._handler = handler
        self._guard = guard
        self._limits = limits
        self._parser = HeadParser()
        self._buffer = bytearray()
        self._most = limits.header_bytes + limits.body_bytes
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = self._ending = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)
        if not self._guard.admit(connection):
            return
        self._transport = connection
        self._deadline = self._loop.time() + self._limits.message_timeout_s
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is None:
            return
        self._transport = None
        self._guard.leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            # Nobody waits for the decision any more.
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._ending:
            return
        if not self._buffer and self._task is None:
            self._deadline = self._loop.time() + self._limits.message_timeout_s
        self._buffer += data
        if self._task is None:
            self._advance()
        if len(self._buffer) > self._most and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True

    def _advance(self) -> None:
        """Starts on the next request, where it is whole."""
        try:
            taken = self._take()
        except RingfenceError as error:
            answer = refusal(error)
            self._reply(HttpReply(answer.status, answer.headers, answer.body), keep=False)
            return
        if taken is not None:
            request, keep = taken
            self._deadline = float("inf")
            self._task = self._loop.create_task(self._serve(request, keep=keep))

    def _take(self) -> tuple[HttpRequest, bool] | None:
        end = self._buffer.find(_END, 0, self._limits.header_bytes)
        if end < 0:
            if len(self._buffer) >= self._limits.header_bytes:
                raise HostError(
                    FIELDS_TOO_LARGE, f"A header has more than {self._limits.header_bytes} bytes.", field="headers"
                )
            return None
        start = end + len(_END)
        method, target, headers, length, keep = self._parser.parse(bytes(self._buffer[:start]))
        if length > self._limits.body_bytes:
            raise HostError(BODY_TOO_LARGE, f"A body has more than {self._limits.body_bytes} bytes.", field="body")
        if len(self._buffer) < start + length:
            return None
        body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return HttpRequest(method, target, headers, body), keep

    async def _serve(self, request: HttpRequest, *, keep: bool) -> None:
        try:
            reply = await self._handler(request)
        except Exception:  # noqa: BLE001 - whatever breaks, the host is told to deny
            reply, keep = HttpReply(500), False
        self._task = None
        self._reply(reply, keep=keep)
        if self._ending or self._transport is None:
            return
        if self._paused and len(self._buffer) <= self._most:
            self._paused = False
            self._transport.resume_reading()
        now = self._loop.time()
        if self._buffer:
            self._deadline = now + self._limits.message_timeout_s
            self._advance()
        else:
            self._deadline = now + self._limits.idle_timeout_s

    def _reply(self, reply: HttpReply, *, keep: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(encode_reply(reply, keep=keep))
        if not keep:
            self._ending = True
            self._buffer.clear()
            self._transport.close()

    def _watch(self) -> None:
        """Breaks the connection off at its deadline; one timer a connection, however many requests it carries."""
        now = self._loop.time()
        if self._transport is None:
            return
        if now >= self._deadline:
            self._transport.abort()
            return
        again = min(self._deadline - now, self._limits.message_timeout_s)
        self._timer = self._loop.call_later(again, self._watch)


def encode_reply(reply: HttpReply, *, keep: bool) -> bytes:
    """The bytes of an answer. A field that could end its line early makes it an empty 500."""
    reason = _REASONS.get(reply.status, b"Refused")
    lines = [b"HTTP/1.1 %d %s" % (reply.status, reason), b"content-length: %d" % len(reply.body)]
    for name, value in reply.headers:
        line = f"{name}: {value}"
        if not line.isascii() or not line.isprintable():
            return b"HTTP/1.1 500 Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        lines.append(line.encode("ascii"))
    if not keep:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + _END + reply.body


def _length(headers: list[tuple[str, str]]) -> int:
    length = ""
    for name, value in headers:
        if name == "transfer-encoding":
            raise _violated("The request has a transfer coding; send a length.")
        if name == "content-length":
            if length or not (value.isascii() and value.isdigit() and len(value) <= 12):
                raise _violated("The length is none, or is given twice.")
            length = value
    return int(length or "0")


def _violated(what: str) -> HostError:
    return HostError(PROTOCOL_VIOLATED, what, field="request")
