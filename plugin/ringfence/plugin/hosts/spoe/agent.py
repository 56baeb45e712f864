"""The SPOE agent: HAProxy's connections over a Unix socket, each question decided beside the others."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.exemptions import Exemptions, is_exempt
from ringfence.plugin.hosts.hops import HopNetwork, Hops
from ringfence.plugin.hosts.port import Answer, Gatekeeper
from ringfence.plugin.hosts.refusals import Desk, refusal
from ringfence.plugin.hosts.spoe.connection import Connection, Notified
from ringfence.plugin.hosts.spoe.frames import LENGTH_BYTES, Status, encode_ack
from ringfence.plugin.hosts.spoe.translation import MESSAGE, read_message, write_variables
from ringfence.plugin.hosts.unix_peers import PeerGuard, PeerSocket


class SpoeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A SPOE agent: its socket, whom HAProxy may name as client, and its bounds.

    `max_frame_size` is HAProxy's `tune.bufsize` less 4; `timeout_s` is shorter than its `timeout processing`.
    """

    socket: PeerSocket
    hops: tuple[HopNetwork, ...] = ()
    exemptions: Exemptions = Exemptions()
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0
    max_frame_size: Annotated[int, msgspec.Meta(ge=256, le=1024 * 1024)] = 32 * 1024 - LENGTH_BYTES
    hello_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0
    idle_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0


class SpoeAgent:
    """Answers the questions of HAProxy about any upstream, by its configured name."""

    def __init__(self, gatekeeper: Gatekeeper, settings: SpoeSettings) -> None:
        self._desk = Desk(gatekeeper, concurrent=settings.concurrent, timeout_s=settings.timeout_s)
        self._hops = Hops.of(settings.hops)
        self._exemptions = settings.exemptions

    async def answer(self, question: Notified) -> bytes:
        """The ACK frame for a question; one that cannot be understood is refused."""
        try:
            (message,) = [one for one in question.messages if one.name == MESSAGE]
            inbound = read_message(message, self._hops)
            if is_exempt(inbound.target, inbound.headers, self._exemptions):
                answer = Answer(200)
            else:
                answer = await self._desk.decide(inbound)
        except RingfenceError as error:
            answer = refusal(error)
        except ValueError:
            # Not one message of ours: nothing is set, which denies.
            return encode_ack(question.stream, question.frame, ())
        return encode_ack(question.stream, question.frame, write_variables(answer))


class SpoeProtocol(asyncio.Protocol):
    """One connection of HAProxy, broken off where `guard` does not admit it."""

    def __init__(self, agent: SpoeAgent, guard: PeerGuard, settings: SpoeSettings) -> None:
        self._agent = agent
        self._guard = guard
        self._settings = settings
        self._connection = Connection(settings.max_frame_size)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._patience = settings.hello_timeout_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)
        if not self._guard.admit(connection):
            return
        self._transport = connection
        self._heard_at = self._loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is None:
            return
        self._transport = None
        self._guard.leave()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._connection.ended:
            return
        self._heard_at = self._loop.time()
        for question in self._connection.receive(data):
            self._patience = self._settings.idle_timeout_s
            task = self._loop.create_task(self._answer(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._flush()

    async def _answer(self, question: Notified) -> None:
        frame = await self._agent.answer(question)
        if self._connection.answered(question) and self._transport is not None:
            self._transport.write(frame)

    def _flush(self) -> None:
        if self._transport is None:
            return
        out = self._connection.take()
        if out:
            self._transport.write(out)
        if self._connection.ended:
            self._transport.close()

    def _watch(self) -> None:
        if self._transport is None:
            return
        left = self._heard_at + self._patience - self._loop.time()
        if left <= 0 and not self._tasks:
            self._connection.stop(Status.TIMEOUT)
            self._flush()
            return
        self._timer = self._loop.call_later(max(left, self._settings.hello_timeout_s), self._watch)


async def serve(settings: SpoeSettings, gatekeeper: Gatekeeper) -> asyncio.Server:
    """A started agent; whoever started it closes it. Raises `GateError` where it cannot listen."""
    listener, guard = settings.socket.open()
    agent = SpoeAgent(gatekeeper, settings)
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: SpoeProtocol(agent, guard, settings), sock=listener)
