"""The HTTP/2 server as a real gRPC client and an operator meet it: peers, deadlines, limits, an end without loss."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.hosts.http2.errors import LISTEN_FAILED, Http2Error
from ringfence.plugin.hosts.http2.limits import Http2Limits
from ringfence.plugin.hosts.http2.listen import take_over
from ringfence.plugin.hosts.http2.server import GrpcServer
from tests.plugin.hosts.envoy_h2_wire import METHOD, PREFACE, SETTINGS, Client, call, frame, setting, u32

REFUSED = Code("test.refused", Kind.EXHAUSTED)
DEFAULTS = Http2Limits()
Call = Callable[..., Awaitable[bytes]]


class Scripted:
    """A handler that does what its message says, and counts."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self, message: bytes) -> bytes:
        try:
            match message:
                case b"wait":
                    await self.release.wait()
                case b"refuse":
                    raise RingfenceError(REFUSED, "Why: 100 % full — später.")
                case b"break":
                    raise KeyError("a secret")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return message[::-1]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rf-h2-") as folder:
        yield Path(folder) / "s.sock"


@asynccontextmanager
async def serving(path: Path, handler: Scripted, limits: Http2Limits = DEFAULTS) -> AsyncIterator[GrpcServer]:
    server = await GrpcServer(METHOD, handler, limits, [os.getuid()]).start(path)
    try:
        yield server
    finally:
        await server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


def there(path: Path) -> bool:
    return path.exists()


@asynccontextmanager
async def calling(path: Path, method: str = METHOD) -> AsyncIterator[Call]:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        yield channel.unary_unary(method)


async def status(awaitable: Awaitable[bytes]) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code(), caught.value.details()


async def test_a_real_client_is_answered(path: Path) -> None:
    async with serving(path, Scripted()), calling(path) as ask:
        assert await ask(b"hello", timeout=5) == b"olleh"
        assert await ask(b"", timeout=5) == b""
        large = os.urandom(200_000)
        assert await ask(large, timeout=5) == large[::-1]
        assert await asyncio.gather(*(ask(b"%d" % n, timeout=10) for n in range(300))) == [
            (b"%d" % n)[::-1] for n in range(300)
        ]


async def test_a_failure_becomes_its_status_and_no_more(path: Path) -> None:
    async with serving(path, Scripted()), calling(path) as ask, calling(path, "/test.Echo/Other") as other:
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await status(ask(b"refuse", timeout=5)) == (exhausted, "Why: 100 % full — später.")
        assert await status(ask(b"break", timeout=5)) == (grpc.StatusCode.INTERNAL, "The call failed.")
        assert (await status(other(b"", timeout=5)))[0] == grpc.StatusCode.UNIMPLEMENTED
        assert (await status(ask(bytes(300_000), timeout=5)))[0] == exhausted
        assert await ask(b"hello", timeout=5) == b"olleh"


async def test_a_compressed_message_is_refused(path: Path) -> None:
    async with serving(path, Scripted()):
        options = grpc.Compression.Gzip
        async with grpc.aio.insecure_channel(f"unix:{path}", compression=options) as channel:
            ask: Call = channel.unary_unary(METHOD)
            assert (await status(ask(bytes(10_000), timeout=5)))[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_the_shorter_of_both_deadlines_ends_a_call(path: Path) -> None:
    handler = Scripted()
    async with serving(path, handler, Http2Limits(deadline_s=0.1)), calling(path) as ask:
        assert (await status(ask(b"wait", timeout=5)))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await status(ask(b"wait", timeout=0.02)))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: handler.cancelled == 2)


async def test_a_client_that_goes_cancels_its_calls(path: Path) -> None:
    handler = Scripted()
    async with serving(path, handler) as server:
        client = Client(*await asyncio.open_unix_connection(str(path)))
        await client.send(PREFACE + frame(SETTINGS) + call(1, message=b"wait") + call(3, message=b"wait"))
        await until(lambda: server.calls == 2)
        client.close()
        await until(lambda: server.calls == 0)
        assert handler.cancelled == 2
        assert not server.peers


async def test_more_calls_than_allowed_are_refused_and_the_others_answered(path: Path) -> None:
    handler = Scripted()
    async with serving(path, handler, Http2Limits(concurrent_calls=2)), calling(path) as ask:
        calls = [asyncio.ensure_future(ask(b"wait", timeout=5)) for _ in range(5)]
        done, pending = await asyncio.wait(calls, timeout=1)
        assert len(done) == 3
        handler.release.set()
        assert await asyncio.gather(*pending) == [b"tiaw"] * 2
        for refused in done:
            assert (await status(refused))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_another_user_is_turned_away(path: Path) -> None:
    server = await GrpcServer(METHOD, Scripted(), Http2Limits(), [os.getuid() + 1]).start(path)
    client = Client(*await asyncio.open_unix_connection(str(path)))
    await client.send(PREFACE + frame(SETTINGS) + call())
    assert not await client.read_one()
    client.close()
    await server.close()


async def test_more_connections_than_allowed_are_turned_away(path: Path) -> None:
    async with serving(path, Scripted(), Http2Limits(connections=1)):
        first, second = [Client(*await asyncio.open_unix_connection(str(path))) for _ in range(2)]
        assert await first.read_one()
        assert not await second.read_one()
        first.close()
        second.close()


async def test_a_client_that_says_nothing_or_reads_nothing_is_given_up(path: Path) -> None:
    async with serving(path, Scripted(), Http2Limits(request_s=0.1)) as server:
        silent = Client(*await asyncio.open_unix_connection(str(path)))
        deaf_reader, deaf = await asyncio.open_unix_connection(str(path), limit=1)
        deaf.write(PREFACE + frame(SETTINGS))
        for number in range(1, 200, 2):
            deaf.write(frame(8, 0, 0, (100_000).to_bytes(4, "big")) + call(number, message=bytes(15_000)))
        await until(lambda: not server.peers)
        silent.close()
        deaf.close()
        del deaf_reader


async def ask_on(writer: asyncio.StreamWriter) -> None:
    for number in range(1, 2000, 2):
        writer.write(call(number, message=bytes(16_000)))
        async with asyncio.timeout(1):
            await writer.drain()


async def test_a_client_that_reads_nothing_is_not_read_from(path: Path) -> None:
    # Else its answers would pile up in this process.
    async with serving(path, Scripted(), Http2Limits(request_s=60)) as server:
        _, deaf = await asyncio.open_unix_connection(str(path), limit=1)
        deaf.write(PREFACE + frame(SETTINGS, 0, 0, setting(4, 2**31 - 1)) + frame(8, 0, 0, u32(2**31 - 1 - 65_535)))
        with pytest.raises(TimeoutError):
            await ask_on(deaf)
        assert server.peers
        deaf.close()


async def test_draining_answers_what_is_under_way_and_a_successor_the_rest(path: Path) -> None:
    old, new = Scripted(), Scripted()
    async with serving(path, old) as first, calling(path) as ask:
        waiting = asyncio.ensure_future(ask(b"wait", timeout=10))
        await until(lambda: first.calls == 1)
        async with serving(path, new):
            drained = asyncio.create_task(first.drain(5))
            await asyncio.sleep(0.2)
            assert await ask(b"new", timeout=5) == b"wen"
            assert not drained.done()
            old.release.set()
            assert await waiting == b"tiaw"
            await drained
            assert there(path)
            assert await ask(b"again", timeout=5) == b"niaga"
        assert not there(path)


async def test_draining_does_not_wait_for_ever(path: Path) -> None:
    handler = Scripted()
    async with serving(path, handler) as server, calling(path) as ask:
        waiting = asyncio.ensure_future(ask(b"wait", timeout=10))
        await asyncio.sleep(0.1)
        await server.drain(0.1)
        assert (await status(waiting))[0] == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("place", ["file", "link", "open folder"])
def test_a_place_that_is_not_ours_alone_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    path = folder / "s"
    if place == "file":
        path.write_text("kept")
    elif place == "link":
        path.symlink_to(tmp_path)
    else:
        folder.chmod(0o777)
    with pytest.raises(Http2Error) as caught:
        take_over(path, 0o600)
    assert caught.value.code == LISTEN_FAILED
    assert [one.name for one in folder.iterdir()] == ([] if place == "open folder" else ["s"])


def test_a_socket_has_the_mode_that_was_asked_for_and_leaves_a_successors_alone(path: Path) -> None:
    mask = os.umask(0)
    try:
        first = take_over(path, 0o660)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        second = take_over(path, 0o600)
        first.remove()
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        second.remove()
        assert not path.exists()
        second.remove()
    finally:
        os.umask(mask)
        first.socket.close()
        second.socket.close()
