"""Connections at the socket: headers end in time and in size, and strangers only ever push out strangers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from uvicorn.server import ServerState

from ringfence.plugin.builtin.connections import AUTHENTICATED, HEADER_BYTES, Crowd, guarded_protocol

LIMIT = 4
HEADER_TIMEOUT_S = 0.3
REQUEST = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
Connect = Callable[[], Any]


class Line:
    """A connection that remembers whether it was broken off."""

    def __init__(self) -> None:
        self.open = True

    def abort(self) -> None:
        assert self.open
        self.open = False


class CrowdModel(RuleBasedStateMachine):
    """Whatever comes and goes, the crowd is bounded and whoever is authenticated stays."""

    def __init__(self) -> None:
        super().__init__()
        self.crowd = Crowd(LIMIT)
        self.lines: list[Line] = []
        self.known: set[Line] = set()

    @rule()
    def enter(self) -> None:
        line = Line()
        self.lines.append(line)
        self.crowd.enter(line)

    @rule(number=st.integers(0, 20))
    def know(self, number: int) -> None:
        for line in self.lines[number : number + 1]:
            self.crowd.know(line)
            if line.open:
                self.known.add(line)

    @rule(number=st.integers(0, 20))
    def forget(self, number: int) -> None:
        for line in self.lines[number : number + 1]:
            self.crowd.forget(line)
            self.known.discard(line)

    @rule(number=st.integers(0, 20))
    def leave(self, number: int) -> None:
        for line in self.lines[number : number + 1]:
            self.crowd.leave(line)
            self.known.discard(line)
            self.lines.remove(line)

    @invariant()
    def bounded(self) -> None:
        assert sum(line.open for line in self.lines) <= LIMIT
        assert all(line.open for line in self.known)


TestCrowd = CrowdModel.TestCase
TestCrowd.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_the_oldest_stranger_goes_first() -> None:
    crowd, lines = Crowd(3), [Line() for _ in range(5)]
    for line in lines[:3]:
        crowd.enter(line)
    crowd.know(lines[0])
    crowd.enter(lines[3])
    assert [line.open for line in lines[:4]] == [True, False, True, True]
    # Its next request may be anybody's, so it is the youngest stranger now.
    crowd.forget(lines[0])
    crowd.enter(lines[4])
    assert [line.open for line in lines] == [True, False, False, True, True]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body; authenticates `/known` first, and takes its time."""
    if scope["path"] == "/known":
        scope["extensions"][AUTHENTICATED]["call"]()
    if scope["path"] != "/quick":
        await asyncio.sleep(2 * HEADER_TIMEOUT_S)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens connections to a server with that application."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        ws="none",
        http=guarded_protocol(limit=LIMIT, header_timeout_s=HEADER_TIMEOUT_S),
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    config.load()
    state: Any = ServerState()
    made: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: made(config=config, server_state=state, app_state={}), tmp_path / "s"
    )
    opened: list[asyncio.StreamWriter] = []

    async def open_one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        opened.append(writer)
        return reader, writer

    yield open_one
    for writer in opened:
        writer.close()
    server.close()
    await asyncio.gather(*state.tasks)
    for protocol in list(state.connections):
        protocol.abort()
    await asyncio.sleep(0)


async def ending(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, which it must do soon."""
    got = b""
    try:
        async with asyncio.timeout(3):
            while chunk := await reader.read(1000):
                got += chunk
    except OSError:
        pass
    return got


async def pour(writer: asyncio.StreamWriter, limit: int) -> int:
    """How many bytes of one header could be sent before the other side closed."""
    sent = 0
    try:
        while sent < limit:
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000
    except OSError:
        pass
    return sent


async def test_a_request_is_answered_and_the_next_one_on_its_connection_too(connect: Connect) -> None:
    reader, writer = await connect()
    for _ in range(2):
        writer.write(REQUEST % b"/quick" + b"x")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("before", [b"", REQUEST % b"/quick" + b"x"])
@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_header_that_does_not_end_is_not_waited_for(connect: Connect, before: bytes, start: bytes) -> None:
    reader, writer = await connect()
    if before:
        writer.write(before)
        await reader.readuntil(b"ok")
    began = asyncio.get_running_loop().time()
    writer.write(start)

    async def drip() -> None:
        while start:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert await ending(reader) == b""
    dripping.cancel()
    assert HEADER_TIMEOUT_S * 0.9 < asyncio.get_running_loop().time() - began < 2


async def test_a_header_has_a_size(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (HEADER_BYTES - 1000) + b"\r\n\r\n")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\nX: ")
    assert await pour(writer, 10_000_000) < 2_000_000
    assert (await ending(reader)).partition(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"")


async def test_a_request_under_way_is_not_cut_off(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(REQUEST % b"/known" + b"x")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_a_newcomer_pushes_out_strangers_only(connect: Connect) -> None:
    known = await connect()
    known[1].write(REQUEST % b"/known")
    strangers = [await connect() for _ in range(LIMIT - 1)]
    for _, writer in strangers:
        writer.write(REQUEST % b"/slow")
    await asyncio.sleep(0.05)
    newcomer = await connect()
    newcomer[1].write(REQUEST % b"/quick" + b"x")
    assert (await newcomer[0].readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    assert await ending(strangers[0][0]) == b""
    for reader, writer in (known, *strangers[1:]):
        writer.write(b"x")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_where_everybody_is_authenticated_the_newcomer_goes(connect: Connect) -> None:
    known = [await connect() for _ in range(LIMIT)]
    for _, writer in known:
        writer.write(REQUEST % b"/known")
    await asyncio.sleep(0.05)
    assert await ending((await connect())[0]) == b""
    for reader, writer in known:
        writer.write(b"x")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /quick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"POST /quick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n" + b"0" * 100_000,
        b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_does_not_parse_ends_the_connection_and_raises_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    reader, writer = await connect()
    writer.write(sent)
    assert (await ending(reader)).startswith(b"HTTP/1.1 400")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
