"""SPOP 2.0 without HAProxy: values, frames, the connection, and an agent on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import SocketPath
from ringfence.plugin.hosts.errors import HostError
from ringfence.plugin.hosts.exemptions import Exemptions
from ringfence.plugin.hosts.hops import NO_HOPS
from ringfence.plugin.hosts.port import NO_CHANNEL, Answer, Unseen
from ringfence.plugin.hosts.spoe.agent import SpoeAgent, SpoeSettings, serve
from ringfence.plugin.hosts.spoe.connection import MAX_IN_FLIGHT, Connection, Notified
from ringfence.plugin.hosts.spoe.frames import Message, Status, Type, decode_frame, decode_messages, encode_frame
from ringfence.plugin.hosts.spoe.translation import read_headers, read_message, write_variables
from ringfence.plugin.hosts.spoe.values import Reader, Value, encode_integer, encode_string, encode_value
from ringfence.plugin.hosts.unix_peers import PeerSocket
from tests.plugin.hosts.hosts_scene import ScriptedGatekeeper, short_folder

LIMIT = 16380


def text(value: str) -> bytes:
    return encode_string(value.encode())


def hello(
    *, version: str = "2.0", size: int = LIMIT, capabilities: str = "pipelining,async", check: bool = False
) -> bytes:
    pairs = text("supported-versions") + encode_value(version) + text("max-frame-size") + encode_value(size)
    pairs += text("capabilities") + encode_value(capabilities)
    if check:
        pairs += text("healthcheck") + encode_value(True)
    return encode_frame(Type.HAPROXY_HELLO, pairs)


def fields(headers: Sequence[tuple[str, str]]) -> bytes:
    return b"".join(text(name) + text(value) for name, value in headers) + b"\0\0"


HEADERS = [("Host", "h.test"), ("X-Test", "allow"), ("X-Ringfence-Assertion", "forged"), ("X-Forwarded-For", "6.6.6.6")]


def notify(stream: int = 1, headers: bytes = b"", **strings: str) -> bytes:
    arguments = {"upstream": "service", "method": "GET", "target": "/a?b", "version": "1.1"} | strings
    payload = b"".join(text(name) + encode_value(value) for name, value in arguments.items())
    payload += text("headers") + b"\x09" + encode_string(headers or fields(HEADERS))
    payload += text("source") + b"\x06" + bytes([192, 0, 2, 1]) + text("certificate") + b"\x00"
    body = text("ringfence") + bytes([len(arguments) + 3]) + payload
    return encode_frame(Type.NOTIFY, body, stream=stream, frame=1)


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def status(data: bytes) -> Value:
    frame = decode_frame(frames(data)[-1])
    assert frame.type is Type.AGENT_DISCONNECT
    return frame.payload().pairs()["status-code"]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (239, "ef"), (240, "f000"), (2287, "ff7f"), (2288, "f08000"), (264431, "ffff7f"), (264432, "f0808000")],
)
def test_integers_have_the_encoding_of_the_specification(value: int, encoded: str) -> None:
    assert encode_integer(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).integer() == value


@given(st.integers(0, 2**64 - 1))
def test_integers_come_back(value: int) -> None:
    reader = Reader(encode_integer(value))
    assert reader.integer() == value
    assert reader.ended


@given(st.one_of(st.booleans(), st.integers(0, 2**32 - 1), st.text(st.characters(codec="ascii"))))
def test_values_come_back(value: bool | int | str) -> None:
    assert Reader(encode_value(value)).value() == value


@pytest.mark.parametrize(
    "raw", ["", "08f0", "03" + "ff" * 12, "0a", "08", "0805", "0605", "08f0ffffffffffffffffff7f", "0b00"]
)
def test_values_past_the_end_or_of_unknown_types_are_refused(raw: str) -> None:
    with pytest.raises(HostError):
        Reader(bytes.fromhex(raw)).value()


def test_a_connection_greets_and_asks() -> None:
    connection = Connection(LIMIT)
    assert connection.receive(hello(size=10_000)) == []
    (answer,) = frames(connection.take())
    assert decode_frame(answer).payload().pairs() == {
        "version": "2.0",
        "max-frame-size": 10_000,
        "capabilities": "pipelining",
    }
    first, second = connection.receive(notify(1) + notify(2))
    assert [first.stream, second.stream] == [1, 2]
    assert connection.answered(second)
    assert not connection.answered(second)
    assert connection.answered(first)


@given(st.integers(1, 40))
def test_frames_may_arrive_in_pieces(size: int) -> None:
    connection = Connection(LIMIT)
    data = hello() + notify(1) + notify(2)
    asked = [one for start in range(0, len(data), size) for one in connection.receive(data[start : start + size])]
    assert [one.stream for one in asked] == [1, 2]


def test_a_health_check_ends_with_the_hello() -> None:
    connection = Connection(LIMIT)
    connection.receive(hello(check=True) + notify())
    assert connection.ended
    assert len(frames(connection.take())) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (notify(), Status.INVALID),
        (hello(version="1.0"), Status.VERSION_UNSUPPORTED),
        (hello(size=255), Status.SIZE_BAD),
        (encode_frame(Type.HAPROXY_HELLO, b""), Status.VERSION_MISSING),
        (encode_frame(Type.HAPROXY_HELLO, text("supported-versions") + encode_value("2.0")), Status.SIZE_MISSING),
        (
            encode_frame(
                Type.HAPROXY_HELLO,
                text("supported-versions") + encode_value("2.0") + text("max-frame-size") + encode_value(1000),
            ),
            Status.CAPABILITIES_MISSING,
        ),
        (hello() + hello(), Status.INVALID),
        (hello() + notify() + notify(), Status.INVALID),
        (hello() + encode_frame(Type.ACK, b""), Status.INVALID),
        (hello() + encode_frame(Type.UNSET, b""), Status.FRAGMENTATION),
        (hello() + b"\0\0\0\x07\x03\0\0\0\0\1\1", Status.FRAGMENTATION),
        (hello() + b"\0\0\0\x07\x03\0\0\0\3\1\1", Status.FRAGMENTATION),
        (hello() + b"\0\0\0\x01\x09", Status.INVALID),
        (hello() + b"\0\0\0\0", Status.INVALID),
        (hello() + b"\xff\xff\xff\xff", Status.TOO_BIG),
        (hello(size=300) + b"\0\0\2\0", Status.TOO_BIG),
        (hello() + encode_frame(Type.NOTIFY, b"\xffgarbage"), Status.INVALID),
        (hello() + encode_frame(Type.NOTIFY, (text("m") + b"\0") * 17), Status.INVALID),
        (hello() + encode_frame(Type.NOTIFY, text("m") + b"\2" + (text("a") + b"\0") * 2), Status.INVALID),
        (hello() + b"".join(notify(n) for n in range(MAX_IN_FLIGHT + 1)), Status.INVALID),
        (hello() + encode_frame(Type.HAPROXY_DISCONNECT, b""), Status.NORMAL),
    ],
)
def test_what_the_protocol_does_not_allow_ends_the_connection(data: bytes, expected: Status) -> None:
    connection = Connection(LIMIT)
    connection.receive(data)
    assert connection.ended
    assert status(connection.take()) == expected
    assert connection.receive(hello() + notify(999)) == []


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise_anything(data: bytes, greeted: bool) -> None:
    connection = Connection(LIMIT)
    connection.receive(hello() + data if greeted else data)


@given(st.binary(max_size=200))
def test_any_payload_is_read_or_refused(data: bytes) -> None:
    for read in (lambda: decode_messages(Reader(data)), lambda: read_headers(data), lambda: decode_frame(data)):
        with contextlib.suppress(HostError):
            read()


def message(**changes: Value) -> Message:
    arguments: dict[str, Value] = {
        "upstream": "service",
        "method": "GET",
        "target": "/a?b",
        "version": "1.1",
        "headers": fields(HEADERS),
        "source": (4, bytes([192, 0, 2, 1])),
        "certificate": None,
    }
    return Message("ringfence", arguments | changes)


def test_a_message_becomes_the_request_that_it_shows() -> None:
    inbound = read_message(message(), NO_HOPS)
    assert inbound.headers == [("host", "h.test"), ("x-test", "allow")]
    assert (inbound.target.authority, inbound.target.path, inbound.target.query) == ("h.test", "/a", "?b")
    assert (inbound.source, inbound.body, inbound.channel) == ("192.0.2.1", Unseen.ABSENT, NO_CHANNEL)
    assert read_message(message(certificate=b"der"), NO_HOPS).channel.certificate == b"der"
    assert read_message(message(source=None), NO_HOPS).source == "unix"
    assert read_message(message(version="2.0"), NO_HOPS).body is Unseen.HIDDEN


@pytest.mark.parametrize(
    "changes",
    [
        {"upstream": None},
        {"method": 1},
        {"headers": "text"},
        {"headers": b"\x01a"},
        {"headers": b"\x00\x00\x00"},
        {"target": "/../a"},
        {"headers": fields([])},
        {"headers": fields([("host", "a"), ("host", "b")])},
        {"source": "text"},
        {"headers": fields([("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")])},
        {"headers": fields([("host", "a"), ("connection", "signature")])},
        {"headers": fields([("host", "a"), ("b", "é")])},
    ],
)
def test_a_message_that_cannot_be_meant_is_refused(changes: dict[str, Value]) -> None:
    with pytest.raises(HostError):
        read_message(message(**changes), NO_HOPS)


def test_variables_of_a_refusal_never_allow() -> None:
    for answer in (
        Answer(403),
        Answer(401, (("x-ringfence-assertion", "t"),), (("www-authenticate", "a"),)),
        Answer(200, (("set-cookie", "x"),)),
        Answer(200, (("x-ringfence-assertion", "a\r\nb"),)),
        Answer(200, (("x-ringfence-assertion", "a" * 10_000),)),
        Answer(204),
        Answer(302),
        Answer(0),
    ):
        assert "allow" not in dict(write_variables(answer)), answer
    allowed = dict(write_variables(Answer(200, (("X-Ringfence-Assertion", "t"),), decision_id="d")))
    assert allowed == {"allow": True, "status": 200, "decision": "d", "assertion": "t"}


@contextlib.asynccontextmanager
async def agent(gatekeeper: ScriptedGatekeeper, **changes: object) -> AsyncIterator[Path]:
    with short_folder() as folder:
        path = folder / "s"
        settings = msgspec.structs.replace(SpoeSettings(PeerSocket(SocketPath(path))), **changes)
        server = await serve(settings, gatekeeper)
        try:
            yield path
        finally:
            server.close()


async def variables(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length = int.from_bytes(await reader.readexactly(4), "big")
    frame = decode_frame(await reader.readexactly(length))
    assert frame.type is Type.ACK
    return frame.stream, frame.data[frame.start :]


async def greeted(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(hello())
    await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    return reader, writer


async def test_questions_of_one_connection_do_not_wait_for_each_other() -> None:
    gatekeeper = ScriptedGatekeeper()
    async with agent(gatekeeper) as path:
        reader, writer = await greeted(path)
        gatekeeper.delay_s = 0.3
        writer.write(notify(1))
        await asyncio.sleep(0.05)
        gatekeeper.delay_s = 0.0
        writer.write(notify(2) + notify(3, fields([("host", "h"), ("x-test", "deny")])))
        async with asyncio.timeout(3):
            got = [await variables(reader) for _ in range(3)]
        writer.close()
    assert [stream for stream, _ in got] == [2, 3, 1]
    assert [b"allow" in payload for _, payload in got] == [True, False, True]


async def test_late_malformed_and_foreign_questions_are_not_allowed() -> None:
    gatekeeper = ScriptedGatekeeper(delay_s=5)
    async with agent(gatekeeper, timeout_s=0.05) as path:
        reader, writer = await greeted(path)
        writer.write(notify(1) + notify(2, target="/../a"))
        writer.write(encode_frame(Type.NOTIFY, text("other") + b"\0", stream=3, frame=1))
        async with asyncio.timeout(3):
            got = dict([await variables(reader) for _ in range(3)])
        writer.close()
    assert b"hosts.decision_late" in got[1]
    assert b"hosts.target_malformed" in got[2]
    assert got[3] == b""


async def test_a_silent_connection_is_closed_with_a_status() -> None:
    async with agent(ScriptedGatekeeper(), hello_timeout_s=0.1) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with asyncio.timeout(3):
            assert status(await reader.read()) == Status.TIMEOUT
        writer.close()


async def test_an_exempt_path_is_allowed_without_a_decision() -> None:
    gatekeeper = ScriptedGatekeeper()
    settings = SpoeSettings(PeerSocket(SocketPath("/s")), exemptions=Exemptions(exempt=("/healthz",)))
    frame = await SpoeAgent(gatekeeper, settings).answer(Notified(1, 1, (message(target="/healthz"),)))
    assert (b"allow" in frame, gatekeeper.seen) == (True, [])
