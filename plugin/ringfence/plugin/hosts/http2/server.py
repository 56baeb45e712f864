"""The shell around `connection` and `grpc`: a Unix socket, checked peers, deadlines, and an end without a lost call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final, Self, cast

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.http2 import grpc
from ringfence.plugin.hosts.http2.connection import Connection
from ringfence.plugin.hosts.http2.errors import CallRefusedError
from ringfence.plugin.hosts.http2.events import Cancelled, Progress, Request
from ringfence.plugin.hosts.http2.fields import Fields
from ringfence.plugin.hosts.http2.limits import Http2Limits
from ringfence.plugin.hosts.http2.listen import Listener, peer_user, take_over

Handler = Callable[[bytes], Awaitable[bytes]]
"""Answers one message. A `RingfenceError` becomes the gRPC status of its kind, anything else INTERNAL."""

_TICK_S: Final = 0.5
_SETTLE_S: Final = 0.05
_LONGEST_DRAIN_S: Final = 30.0


class GrpcServer:
    """Serves one unary method at `path`, such as `/package.Service/Method`, to processes of `users` alone."""

    def __init__(self, path: str, handler: Handler, limits: Http2Limits, users: Collection[int]) -> None:
        self.path = path
        self.handler = handler
        self.limits = limits
        self.users = frozenset(users)
        self.draining = False
        self.calls = 0
        self.peers: set[Peer] = set()
        self._listener: Listener | None = None
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, socket: Path, mode: int = 0o600) -> Self:
        """Listens at `socket`, in the place of a server that does so already. Raises `grpc_server.listen_failed`."""
        self._listener = take_over(socket, mode)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Peer(self, loop), sock=self._listener.socket)
        self._ticker = loop.create_task(self._tick())
        return self

    async def drain(self, grace_s: float = _LONGEST_DRAIN_S) -> None:
        """Ends gracefully: every peer is told, what it has sent is answered, and connections close as they fall idle.

        Where a successor listens at the same path by now, no call fails: connections in the queue of this server's own
        socket are served too. After `grace_s` seconds what is left is broken off.
        """
        self.draining = True
        await asyncio.sleep(_SETTLE_S)
        for peer in list(self.peers):
            peer.drain()
        if self.peers:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()
        await self.close()

    async def close(self) -> None:
        """Ends at once; calls under way are broken off, and the socket's file goes unless a successor owns it."""
        if self._server is None or self._ticker is None or self._listener is None:
            return
        self._ticker.cancel()
        self._server.close()
        for peer in list(self.peers):
            peer.abort()
        self._listener.remove()
        self._server = None
        await asyncio.sleep(0)

    def left(self, peer: Peer) -> None:
        """A connection is gone."""
        self.peers.discard(peer)
        if not self.peers:
            self._empty.set()

    def check_room(self) -> None:
        """Refuses a call beyond the most that may be under way on all connections."""
        if self.calls >= self.limits.concurrent_calls:
            raise CallRefusedError(grpc.RESOURCE_EXHAUSTED, "As many calls as allowed are under way.")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for peer in list(self.peers):
                peer.tick()


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: GrpcServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._began = self._loop.time()
        self._connection = Connection(server.limits, self._began)
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, tuple[asyncio.Task[None], asyncio.TimerHandle]] = {}
        self._accepted: tuple[Fields, grpc.Call] = ((), grpc.Call())
        self._flushes = False
        self._stalled_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast(asyncio.Transport, transport)  # uvloop's are of no such class
        server = self._server
        # Any process of this machine may find the socket; only the proxy's may speak for callers.
        allowed = peer_user(opened.get_extra_info("socket")) in server.users
        if not allowed or len(server.peers) >= server.limits.connections:
            opened.abort()
            return
        self._transport = opened
        server.peers.add(self)
        if server.draining:
            self.drain()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        for event in self._connection.receive(data, self._loop.time()):
            match event:
                case Request():
                    self._begin(event)
                case Progress():
                    self._look(event)
                case Cancelled():
                    self._cancel(event.stream)
        self._flush()

    def pause_writing(self) -> None:
        # A peer that does not read is not read from either, so that what waits for it stays bounded.
        self._stalled_since = self._loop.time()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled_since = None
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's signature
        self._transport = None
        self._server.left(self)
        for stream in list(self._calls):
            self._cancel(stream)

    def drain(self) -> None:
        self._connection.drain()
        self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """What happens because nothing does: slow requests, greetings and readers are given up."""
        now, patience = self._loop.time(), self._server.limits.request_s
        silent = not self._connection.greeted and now - self._began > patience
        stalled = self._stalled_since is not None and now - self._stalled_since > patience
        if silent or stalled:
            self.abort()
            return
        for event in self._connection.expire(now):
            self._cancel(event.stream)
        self._flush()

    def _begin(self, request: Request) -> None:
        server = self._server
        try:
            fields, call = self._accepted
            if request.fields is not fields:
                call = grpc.accept(request.fields, server.path)
                self._accepted = (request.fields, call)
            message = grpc.read_message(request.body, server.limits.message_bytes)
            server.check_room()
        except CallRefusedError as refused:
            self._refuse(request.stream, refused)
            return
        wait = server.limits.deadline_s
        if call.timeout_s is not None:
            wait = min(wait, call.timeout_s)
        server.calls += 1
        task = self._loop.create_task(self._serve(request.stream, message))
        task.add_done_callback(self._ended)
        self._calls[request.stream] = (task, self._loop.call_later(wait, self._expire, request.stream))

    def _look(self, progress: Progress) -> None:
        try:
            grpc.check_start(progress.start, self._server.limits.message_bytes)
        except CallRefusedError as refused:
            self._refuse(progress.stream, refused)

    def _refuse(self, stream: int, refused: CallRefusedError) -> None:
        if isinstance(refused, grpc.NotGrpcError):
            block = refused.block
        else:
            block = grpc.failure(refused.status, refused.message)
        self._connection.respond(stream, self._loop.time(), block)

    async def _serve(self, stream: int, message: bytes) -> None:
        head, body, trailers = grpc.RESPONSE_HEAD, b"", grpc.RESPONSE_TRAILERS
        try:
            body = grpc.write_message(await self._server.handler(message))
        except RingfenceError as error:
            head, trailers = grpc.failure(error.code.kind.grpc, error.message), b""
        except Exception:  # noqa: BLE001 - whatever goes wrong is a refusal for the host, and no word of it
            head, trailers = grpc.failure(grpc.INTERNAL, "The call failed."), b""
        under_way = self._calls.pop(stream, None)
        if under_way is not None:
            under_way[1].cancel()
            self._connection.respond(stream, self._loop.time(), head, body, trailers)
            self._flush_soon()

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._server.calls -= 1

    def _expire(self, stream: int) -> None:
        if stream in self._calls:
            self._cancel(stream)
            block = grpc.failure(grpc.DEADLINE_EXCEEDED, "The call was not answered in time.")
            self._connection.respond(stream, self._loop.time(), block)
            self._flush()

    def _cancel(self, stream: int) -> None:
        under_way = self._calls.pop(stream, None)
        if under_way is not None:
            task, timer = under_way
            timer.cancel()
            task.cancel()

    def _flush_soon(self) -> None:
        # Answers that are ready in the same turn of the loop leave in one write; the only one waits for no other.
        if not self._calls:
            self._flush()
        elif not self._flushes:
            self._flushes = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if self._transport is None:
            return
        data = self._connection.outgoing()
        if data:
            self._transport.write(data)
        if self._connection.closed or self._connection.finished:
            self._transport.close()
