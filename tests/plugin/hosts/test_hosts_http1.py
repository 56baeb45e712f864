"""The bounded HTTP/1.1 server, spoken to over real Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import SocketPath
from ringfence.plugin.hosts.errors import HostError
from ringfence.plugin.hosts.forwardauth.service import ForwardAuthSettings, serve
from ringfence.plugin.hosts.http1 import HeadParser, Http1Limits, HttpReply, HttpRequest, encode_reply
from ringfence.plugin.hosts.unix_peers import PeerSocket
from tests.plugin.hosts.hosts_scene import read_reply, short_folder

LIMITS = Http1Limits(header_bytes=1024, body_bytes=100, message_timeout_s=0.3, idle_timeout_s=0.6)


async def echo(request: HttpRequest) -> HttpReply:
    if request.target == "/break":
        raise KeyError
    if request.target == "/wait":
        await asyncio.sleep(10)
    return HttpReply(200, (("x-target", request.target),), request.body)


@contextlib.asynccontextmanager
async def server(
    peers: tuple[str, ...] = (), connections: int = 512, limits: Http1Limits = LIMITS
) -> AsyncIterator[Path]:
    with short_folder() as folder:
        path = folder / "s"
        settings = ForwardAuthSettings(PeerSocket(SocketPath(path), peers=peers, connections=connections), http=limits)
        running = await serve(settings, echo)
        try:
            yield path
        finally:
            running.close()


async def exchange(path: Path, raw: bytes, *, end: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(raw)
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(3):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


CLOSE = b"Connection: close\r\n"


async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    async with server() as path:
        raw = b"".join(b"GET /%d HTTP/1.1\r\nContent-Length: 1\r\n\r\n%d" % (n, n) for n in range(5))
        got = await exchange(path, raw + b"GET /last HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert [line for line in got.split(b"\r\n") if line.startswith(b"x-target")] == [
        *(b"x-target: /%d" % n for n in range(5)),
        b"x-target: /last",
    ]


async def test_far_more_is_pipelined_than_is_buffered() -> None:
    async with server() as path:
        raw = b"GET /a HTTP/1.1\r\n\r\n" * 2000
        got = await exchange(path, raw + b"GET /last HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert got.count(b"HTTP/1.1 200") == 2001


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 2000, 413),
        (b"a" * 1024, 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET /break HTTP/1.1\r\n\r\n", 500),
    ],
)
async def test_what_is_not_a_bounded_request_is_refused_and_closed(raw: bytes, status: int) -> None:
    async with server() as path:
        assert read_reply(await exchange(path, raw)).status == status


async def test_slow_headers_bodies_and_idle_connections_are_broken_off() -> None:
    async with server() as path:
        for raw in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"):
            assert await exchange(path, raw) == b""
        assert (await exchange(path, b"GET / HTTP/1.1\r\n\r\n")).count(b"HTTP/1.1 200") == 1


async def test_a_host_that_leaves_cancels_its_question() -> None:
    async with server() as path:
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.05)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()] == []


async def test_a_peer_of_another_user_is_turned_away() -> None:
    async with server(peers=("54321",)) as path:
        assert await exchange(path, b"GET / HTTP/1.1\r\n\r\n") == b""


async def test_a_peer_that_this_system_does_not_have_is_a_mistake() -> None:
    with pytest.raises(HostError, match="no such user"):
        async with server(peers=("nobody-of-this-name",)):
            pass


async def test_connections_are_bounded_and_come_back() -> None:
    slow = msgspec.structs.replace(LIMITS, message_timeout_s=5, idle_timeout_s=5)
    async with server(connections=1, limits=slow) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /a HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await exchange(path, b"GET / HTTP/1.1\r\n\r\n") == b""
        writer.close()
        await asyncio.sleep(0.05)
        assert (await exchange(path, b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")).startswith(b"HTTP/1.1 200")


def test_an_answer_cannot_be_split() -> None:
    assert encode_reply(HttpReply(200, (("a", "b\r\nc: d"),)), keep=True).startswith(b"HTTP/1.1 500")
    assert encode_reply(HttpReply(200, (("a", "caf\xe9"),)), keep=True).startswith(b"HTTP/1.1 500")


@given(st.binary(max_size=300))
def test_any_head_is_read_or_refused(data: bytes) -> None:
    for head in (data, b"GET / HTTP/1.1\r\n" + data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"):
        with contextlib.suppress(HostError):
            HeadParser().parse(head)
