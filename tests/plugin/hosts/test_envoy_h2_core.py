"""The HTTP/2 core without I/O: any cut of its input means the same, windows are kept, and its parts refuse nonsense."""

from __future__ import annotations

import hpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.plugin.hosts.http2 import grpc
from ringfence.plugin.hosts.http2.connection import Connection
from ringfence.plugin.hosts.http2.errors import CallRefusedError
from ringfence.plugin.hosts.http2.events import Request
from ringfence.plugin.hosts.http2.fields import FieldDecoder, leaves_table
from ringfence.plugin.hosts.http2.limits import Allowance, Http2Limits
from tests.plugin.hosts.envoy_h2_wire import (
    BLOCK,
    DATA,
    METHOD,
    PREFACE,
    SETTINGS,
    call,
    frame,
    headers,
    prefixed,
    setting,
    u32,
)

LIMITS = Http2Limits()
FIELDS = ((":method", "POST"), (":scheme", "http"), (":path", METHOD), ("content-type", "application/grpc"))


def connection() -> Connection:
    return Connection(LIMITS, 0.0)


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@given(cuts=st.lists(st.integers(0, 400), max_size=20))
def test_input_may_come_in_any_pieces(cuts: list[int]) -> None:
    data = PREFACE + frame(SETTINGS) + call(1) + call(3, message=b"x" * 100)
    core, events, start = connection(), [], 0
    for end in [*sorted(cuts), len(data)]:
        events += core.receive(data[start:end], 0.0)
        start = max(start, min(end, len(data)))
    requests = [event for event in events if isinstance(event, Request)]
    assert [(one.stream, one.body) for one in requests] == [(1, prefixed(b"hello")), (3, prefixed(b"x" * 100))]


@given(
    window=st.integers(0, 300),
    grants=st.lists(st.tuples(st.sampled_from([0, 1, 3]), st.integers(1, 200)), max_size=30),
    size=st.integers(1, 400),
)
def test_no_window_is_ever_exceeded_and_all_arrives_once_there_is_room(
    window: int, grants: list[tuple[int, int]], size: int
) -> None:
    core = connection()
    core.receive(PREFACE + frame(SETTINGS, 0, 0, setting(4, window)) + call(1) + call(3), 0.0)
    core.outgoing()
    rooms = {1: window, 3: window}
    sent = {1: b"", 3: b""}
    ended: set[int] = set()

    def account() -> None:
        for kind, flags, stream, payload in frames(core.outgoing()):
            if kind == DATA:
                sent[stream] += payload
            elif kind == 1 and flags & 1:
                ended.add(stream)
        assert all(len(sent[stream]) <= rooms[stream] for stream in rooms)

    for stream in (1, 3):
        core.respond(stream, 0.0, grpc.RESPONSE_HEAD, bytes([stream]) * size, grpc.RESPONSE_TRAILERS)
    account()
    for stream, increment in grants:
        core.receive(frame(8, 0, stream, u32(increment)), 0.0)
        if stream:
            rooms[stream] += increment
        account()
    for stream in (1, 3):
        rooms[stream] += 500
        core.receive(frame(8, 0, stream, u32(500)), 0.0)
        account()
    assert sent == {1: b"\1" * size, 3: b"\3" * size}
    assert ended == {1, 3}
    assert core.idle


def test_the_connections_window_bounds_all_streams_together() -> None:
    core = connection()
    core.receive(PREFACE + frame(SETTINGS, 0, 0, setting(4, 2**20)) + call(1) + call(3), 0.0)
    core.outgoing()
    for stream in (1, 3):
        core.respond(stream, 0.0, grpc.RESPONSE_HEAD, bytes(60_000), grpc.RESPONSE_TRAILERS)
    assert sum(len(payload) for kind, *_, payload in frames(core.outgoing()) if kind == DATA) == 65_535
    core.receive(frame(8, 0, 0, u32(60_000)), 0.0)
    assert sum(len(payload) for kind, *_, payload in frames(core.outgoing()) if kind == DATA) == 120_000 - 65_535
    assert core.idle


def test_an_answer_that_nobody_takes_is_dropped() -> None:
    core = connection()
    core.receive(PREFACE + frame(SETTINGS, 0, 0, setting(4, 0)) + call(1), 0.0)
    core.respond(1, 1.0, grpc.RESPONSE_HEAD, bytes(100), grpc.RESPONSE_TRAILERS)
    core.expire(1.0 + LIMITS.request_s - 0.1)
    assert not core.idle
    core.expire(1.0 + LIMITS.request_s)
    assert core.idle


def test_a_smaller_table_of_the_peers_is_acknowledged_in_the_next_block() -> None:
    core = connection()
    core.receive(PREFACE + frame(SETTINGS, 0, 0, setting(1, 0)) + call(1) + call(3), 0.0)
    core.outgoing()
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    for stream in (1, 3):
        core.respond(stream, 0.0, grpc.failure(5, "no"))
        ((_, _, _, block),) = frames(core.outgoing())
        assert ("grpc-status", "5") in [(str(name), str(value)) for name, value in decoder.decode(block)]


def test_draining_serves_what_was_on_its_way_and_ignores_what_came_after() -> None:
    core = connection()
    core.receive(PREFACE + frame(SETTINGS) + call(1), 0.0)
    core.outgoing()
    core.drain()
    first, ping = frames(core.outgoing())
    assert (first[0], first[3]) == (7, u32(2**31 - 1) + u32(0))
    assert [event.stream for event in core.receive(call(3), 0.0)] == [3]
    core.receive(frame(6, 1, 0, ping[3]), 0.0)
    (last,) = frames(core.outgoing())
    assert last[3] == u32(3) + u32(0)
    assert core.receive(call(5) + frame(8, 0, 5, u32(1)) + frame(3, 0, 5, u32(8)), 0.0) == []
    assert not core.closed
    for stream in (1, 3):
        assert not core.finished
        core.respond(stream, 0.0, grpc.failure(5, "no"))
    assert core.finished


@given(st.binary(max_size=300))
def test_what_is_remembered_of_a_block_is_what_hpack_says(tail: bytes) -> None:
    # One decoder remembers, the other is asked anew each time.
    ours, theirs = FieldDecoder(8192), hpack.Decoder(max_header_list_size=8192)
    for block in (BLOCK, tail, BLOCK, tail, BLOCK):
        try:
            expected = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            return
        assert list(ours.decode(block)) == expected


@pytest.mark.parametrize(
    ("block", "leaves"),
    [
        *((b"", True), (b"\x83\xfe", True), (b"\xff\x00", False), (b"\x00\x01a\x01b", True), (b"\x0f\x00\x01b", False)),
        *((b"\x44\x01b", False), (b"\x20", False), (b"\x10\x01a\x01b\x40\x01a\x01b", False), (b"\x04\x7f\x00", False)),
    ],
)
def test_only_what_surely_leaves_the_table_is_remembered(block: bytes, leaves: bool) -> None:
    assert leaves_table(block) is leaves


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("200m", 0.2), ("5u", 5e-6), ("99999999n", 0.099999999)],
)
def test_a_timeout_is_read(timeout: str, seconds: float) -> None:
    assert grpc.accept((*FIELDS, ("grpc-timeout", timeout)), METHOD).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        *(((":method", "GET"), 12), ((":path", METHOD + "/"), 12), ((":path", METHOD.lower()), 12)),
        *((("content-type", "text/plain"), 12), (("content-type", "application/grpcx"), 12)),
        *((("grpc-encoding", "gzip"), 12), (("grpc-timeout", "1"), 3), (("grpc-timeout", "123456789S"), 3)),
        *((("grpc-timeout", "-1S"), 3), (("grpc-timeout", "1s"), 3), (("grpc-timeout", "\u0661S"), 3)),
    ],
)
def test_what_is_no_call_of_the_method_is_refused(change: tuple[str, str], status: int) -> None:
    with pytest.raises(CallRefusedError) as caught:
        grpc.accept((*FIELDS, change), METHOD)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0x", b"\1\0\0\0\1x", prefixed(b"a") * 2])
def test_a_body_is_exactly_one_plain_message(body: bytes) -> None:
    with pytest.raises(CallRefusedError):
        grpc.read_message(body, 100)


def test_an_allowance_fills_with_time_and_never_beyond_its_size() -> None:
    allowance = Allowance(2, 10.0)
    assert [allowance.take(10.0) for _ in range(3)] == [True, True, False]
    assert not allowance.take(5.0), "a clock that goes back fills nothing"
    assert [allowance.take(10.5), allowance.take(10.5)] == [True, False]
    allowance.earn(100)
    assert [allowance.take(10.5) for _ in range(3)] == [True, True, False]


def test_bodies_have_room_for_two_messages() -> None:
    assert Http2Limits(message_bytes=100_000, bodies_bytes=200_000)
    with pytest.raises(ValueError, match="at least twice"):
        Http2Limits(message_bytes=100_000, bodies_bytes=199_999)
    with pytest.raises(msgspec.ValidationError, match="at least twice"):
        msgspec.convert({"message_bytes": 4_000_000}, Http2Limits)


def test_the_largest_message_arrives_again_and_again() -> None:
    limits = Http2Limits(message_bytes=100_000, bodies_bytes=200_000)
    core = Connection(limits, 0.0)
    core.receive(PREFACE + frame(SETTINGS), 0.0)
    room = 65_535
    body = prefixed(bytes(limits.message_bytes))
    for stream in range(1, 41, 2):
        room += sum(
            int.from_bytes(payload, "big") for kind, _, of, payload in frames(core.outgoing()) if (kind, of) == (8, 0)
        )
        assert room >= len(body)
        parts = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
        data = headers(stream) + b"".join(frame(DATA, int(part is parts[-1]), stream, part) for part in parts)
        (request,) = [event for event in core.receive(data, 0.0) if isinstance(event, Request)]
        assert request.body == body
        room -= len(body)
        core.respond(stream, 0.0, grpc.failure(5, "no"))
