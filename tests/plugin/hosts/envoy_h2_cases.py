"""The conformance list: (section, what, bytes sent after the preface, expected reaction).

`expected` is an error number: of the connection (GOAWAY, closed) or, where `stream` is given, of that stream
(RST_STREAM); or that the stream is answered; or that the connection just goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ringfence.plugin.hosts.http2.errors import H2Error
from tests.plugin.hosts.envoy_h2_wire import (
    ACK,
    BLOCK,
    CONTINUATION,
    DATA,
    END,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PSEUDO,
    PUSH,
    REGULAR,
    RST,
    SETTINGS,
    WINDOW,
    body,
    call,
    frame,
    headers,
    literal,
    prefixed,
    setting,
    u32,
)

ANSWERED: Final = "answered"
GOES_ON: Final = "goes on"
PROTOCOL, FLOW, CLOSED, SIZE = (
    H2Error.PROTOCOL_ERROR,
    H2Error.FLOW_CONTROL_ERROR,
    H2Error.STREAM_CLOSED,
    H2Error.FRAME_SIZE_ERROR,
)
COMPRESSION, CALM = H2Error.COMPRESSION_ERROR, H2Error.ENHANCE_YOUR_CALM
CANCEL = u32(H2Error.CANCEL)
BIG = 2**31 - 1
WAITING = headers() + body(1, b"never")
"""A call that is whole and that nobody answers: its stream is half-closed (remote)."""


@dataclass(frozen=True)
class Case:
    section: str
    what: str
    sent: bytes
    expected: H2Error | str
    stream: int = 0
    begins: bytes | None = None


def _malformed(section: str, what: str, block: bytes) -> Case:
    return Case(section, what, headers(1, block) + body(1), PROTOCOL, 1)


def _hpack(section: str, what: str, block: bytes, expected: H2Error = COMPRESSION) -> Case:
    return Case(section, what, headers(1, block), expected)


_FRAMING = (
    Case("3.4", "a preface that is none", b"", PROTOCOL, begins=b"INVALID CONNECTION PREFACE\r\n\r\n"),
    Case("3.4", "a request of HTTP/1", b"", PROTOCOL, begins=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Case("3.4", "the first frame is no SETTINGS", b"", PROTOCOL, begins=PREFACE + frame(PING, 0, 0, bytes(8))),
    Case("3.4", "the first frame is an acknowledgement", b"", PROTOCOL, begins=PREFACE + frame(SETTINGS, ACK)),
    Case("3.4", "a call directly behind the preface", call(), ANSWERED, 1),
    Case("4.1", "an unknown type of frame", frame(0x16, 0xFF, 0, bytes(8)), GOES_ON),
    Case("4.1", "unknown flags", frame(PING, 0x16, 0, b"the mark"), GOES_ON),
    Case("4.1", "the reserved bit", frame(PING, 0, 1 << 31, b"the mark"), GOES_ON),
    Case("4.2", "DATA of 2^14 bytes", headers() + frame(DATA, END, 1, prefixed(bytes(16379))), ANSWERED, 1),
    Case("4.2", "DATA of 2^14 + 1 bytes", headers() + frame(DATA, END, 1, bytes(16385)), SIZE),
    Case("4.2", "HEADERS of 2^14 + 1 bytes", frame(HEADERS, END_HEADERS, 1, bytes(16385)), SIZE),
    Case("4.2", "a length of 2^24 - 1", frame(0x16, 0, 0, b"", length=2**24 - 1), SIZE),
    Case("4.3", "a field block that is no HPACK", headers(1, b"\x40"), COMPRESSION),
    Case("4.3", "PRIORITY within a field block", headers(1, BLOCK, 0) + frame(PRIORITY, 0, 1, bytes(5)), PROTOCOL),
    Case("4.3", "HEADERS of another stream within one", headers(1, BLOCK, 0) + headers(3), PROTOCOL),
    Case("4.3", "an unknown frame within one", headers(1, BLOCK, 0) + frame(0x16, 0, 1), PROTOCOL),
    Case(
        "4.3",
        "a block that is split",
        headers(1, BLOCK[:9], 0) + frame(CONTINUATION, 4, 1, BLOCK[9:]) + body(),
        ANSWERED,
        1,
    ),
)
_STATES = (
    Case("5.1", "idle: DATA", body(), PROTOCOL),
    Case("5.1", "idle: RST_STREAM", frame(RST, 0, 1, CANCEL), PROTOCOL),
    Case("5.1", "idle: WINDOW_UPDATE", frame(WINDOW, 0, 1, u32(100)), PROTOCOL),
    Case("5.1", "idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, BLOCK), PROTOCOL),
    Case("5.1", "half-closed: DATA", WAITING + body(), CLOSED, 1),
    Case("5.1", "half-closed: HEADERS", WAITING + headers(1, REGULAR, END_HEADERS | END), CLOSED, 1),
    Case("5.1", "half-closed: CONTINUATION", WAITING + frame(CONTINUATION, END_HEADERS, 1, BLOCK), PROTOCOL),
    Case("5.1", "half-closed: WINDOW_UPDATE", WAITING + frame(WINDOW, 0, 1, u32(1)), GOES_ON),
    Case("5.1", "half-closed: RST_STREAM", WAITING + frame(RST, 0, 1, CANCEL), GOES_ON),
    Case("5.1", "reset: DATA", headers() + frame(RST, 0, 1, CANCEL) + body(), CLOSED, 1),
    Case("5.1", "reset: HEADERS", headers() + frame(RST, 0, 1, CANCEL) + headers(), CLOSED),
    Case("5.1", "reset: CONTINUATION", headers() + frame(RST, 0, 1, CANCEL) + frame(CONTINUATION, 4, 1), PROTOCOL),
    Case("5.1", "reset: WINDOW_UPDATE", headers() + frame(RST, 0, 1, CANCEL) + frame(WINDOW, 0, 1, u32(1)), GOES_ON),
    Case("5.1", "reset: RST_STREAM", headers() + 2 * frame(RST, 0, 1, CANCEL), GOES_ON),
    Case("5.1", "we reset: DATA on its way", headers(1, literal("a", "b")) + body() + body(), GOES_ON),
    Case("5.1.1", "an even stream", call(2), PROTOCOL),
    Case("5.1.1", "a number below the last", headers(5) + headers(3), PROTOCOL),
    Case("5.1.1", "a number that jumps", call(101), ANSWERED, 101),
    Case(
        "5.1.2", "more streams than allowed", b"".join(headers(2 * n + 1) for n in range(9)), H2Error.REFUSED_STREAM, 17
    ),
    Case("5.3.1", "HEADERS that depend on themselves", headers(1, u32(1) + b"\0" + BLOCK, 4 | PRIORITISED), PROTOCOL),
    Case("5.3.1", "PRIORITY that depends on itself", frame(PRIORITY, 0, 1, u32(1) + b"\0"), PROTOCOL),
    Case("5.4.1", "GOAWAY names the last stream, then the end", call() + frame(DATA, 0, 0), PROTOCOL),
    Case("5.5", "an unknown setting", frame(SETTINGS, 0, 0, setting(0xFF, 1)), GOES_ON),
)
_FRAMES = (
    Case("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), PROTOCOL),
    Case("6.1", "padding", headers() + frame(DATA, END | PADDED, 1, b"\x04" + prefixed(b"hi") + bytes(4)), ANSWERED, 1),
    Case("6.1", "padding longer than the frame", headers() + frame(DATA, PADDED, 1, b"\x06hello"), PROTOCOL),
    Case("6.1", "padding without a length", headers() + frame(DATA, PADDED, 1), SIZE),
    Case("6.2", "HEADERS on stream 0", headers(0), PROTOCOL),
    Case("6.2", "padding", headers(1, b"\x03" + BLOCK + bytes(3), END_HEADERS | PADDED) + body(), ANSWERED, 1),
    Case("6.2", "padding longer than the frame", headers(1, b"\xff" + BLOCK[:20], END_HEADERS | PADDED), PROTOCOL),
    Case("6.2", "priority", headers(1, bytes(4) + b"\x0f" + BLOCK, 4 | PRIORITISED) + body(), ANSWERED, 1),
    Case("6.2", "a priority that is cut", headers(1, b"\0\0", 4 | PRIORITISED), SIZE),
    Case("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    Case("6.3", "PRIORITY of four bytes", frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    Case("6.3", "PRIORITY of an idle stream", frame(PRIORITY, 0, 1, u32(0) + b"\xff") + call(), ANSWERED, 1),
    Case("6.4", "RST_STREAM on stream 0", frame(RST, 0, 0, CANCEL), PROTOCOL),
    Case("6.4", "RST_STREAM of three bytes", headers() + frame(RST, 0, 1, bytes(3)), SIZE),
    Case("6.5", "an acknowledgement with a payload", frame(SETTINGS, ACK, 0, setting(1, 1)), SIZE),
    Case("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1), PROTOCOL),
    Case("6.5", "SETTINGS of three bytes", frame(SETTINGS, 0, 0, bytes(3)), SIZE),
    Case("6.5.2", "ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, setting(2, 2)), PROTOCOL),
    Case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", frame(SETTINGS, 0, 0, setting(4, 2**31)), FLOW),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", frame(SETTINGS, 0, 0, setting(5, 2**14 - 1)), PROTOCOL),
    Case("6.5.2", "MAX_FRAME_SIZE of 2^24", frame(SETTINGS, 0, 0, setting(5, 2**24)), PROTOCOL),
    Case(
        "6.5.3",
        "the last of two values counts",
        frame(SETTINGS, 0, 0, setting(4, 1) + setting(4, 99)) + call(),
        ANSWERED,
        1,
    ),
    Case("6.6", "PUSH_PROMISE", frame(PUSH, END_HEADERS, 1, u32(2) + BLOCK), PROTOCOL),
    Case("6.7", "PING on a stream", frame(PING, 0, 1, bytes(8)), PROTOCOL),
    Case("6.7", "PING of seven bytes", frame(PING, 0, 0, bytes(7)), SIZE),
    Case("6.7", "an answer to no PING", frame(PING, ACK, 0, b"an other"), GOES_ON),
    Case("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    Case("6.8", "GOAWAY of seven bytes", frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    Case("6.9", "an increment of 0 for the connection", frame(WINDOW, 0, 0, u32(0)), PROTOCOL),
    Case("6.9", "an increment of 0 for a stream", headers() + frame(WINDOW, 0, 1, u32(0)), PROTOCOL, 1),
    Case("6.9", "WINDOW_UPDATE of three bytes", frame(WINDOW, 0, 0, bytes(3)), SIZE),
    Case("6.9.1", "a window of the connection over 2^31 - 1", frame(WINDOW, 0, 0, u32(BIG)), FLOW),
    Case("6.9.1", "a window of a stream over 2^31 - 1", headers() + frame(WINDOW, 0, 1, u32(BIG)), FLOW, 1),
    Case(
        "6.9.1", "a stream's window is kept", headers() + 17 * frame(DATA, 0, 1, b"\0\0\4\0\0" + bytes(16379)), FLOW, 1
    ),
    Case(
        "6.9.2",
        "no window, then one",
        frame(SETTINGS, 0, 0, setting(4, 0)) + call() + frame(WINDOW, 0, 1, u32(99)),
        ANSWERED,
        1,
    ),
    Case(
        "6.9.2",
        "the window of open streams moves",
        headers() + frame(SETTINGS, 0, 0, setting(4, 0)) + body() + frame(SETTINGS, 0, 0, setting(4, 99)),
        ANSWERED,
        1,
    ),
    Case(
        "6.9.2",
        "a stream's window moved over 2^31 - 1",
        headers() + frame(WINDOW, 0, 1, u32(BIG - 65535)) + frame(SETTINGS, 0, 0, setting(4, 65536)),
        FLOW,
    ),
    Case(
        "6.10",
        "CONTINUATION twice",
        headers(1, BLOCK[:5], 0)
        + frame(CONTINUATION, 0, 1, BLOCK[5:9])
        + frame(CONTINUATION, 4, 1, BLOCK[9:])
        + body(),
        ANSWERED,
        1,
    ),
    Case("6.10", "CONTINUATION on stream 0", headers(1, BLOCK, 0) + frame(CONTINUATION, 4, 0), PROTOCOL),
    Case("6.10", "CONTINUATION behind END_HEADERS", headers() + frame(CONTINUATION, 4, 1), PROTOCOL),
    Case("6.10", "DATA within a field block", headers(1, BLOCK, 0) + body(), PROTOCOL),
    Case("7", "an unknown error number", headers() + frame(RST, 0, 1, u32(0xFFFF)), GOES_ON),
)
_REQUESTS = (
    Case("8.1", "trailers", headers() + body(1, flags=0) + headers(1, literal("a", "b"), 4 | END), ANSWERED, 1),
    Case("8.1", "trailers that do not end", headers() + headers(1, literal("a", "b")), PROTOCOL, 1),
    Case("8.1", "a pseudo-header among trailers", headers() + headers(1, literal(":path", "/"), 4 | END), PROTOCOL, 1),
    _malformed("8.2.1", "a name in capitals", BLOCK + literal("X-Test", "a")),
    _malformed("8.2.1", "a name that is no token", BLOCK + literal("x test", "a")),
    _malformed("8.2.1", "an empty name", BLOCK + literal("", "a")),
    _malformed("8.2.1", "a line break in a value", BLOCK + literal("a", "b\r\nc: d")),
    _malformed("8.2.1", "a zero in a value", BLOCK + literal("a", "b\0")),
    _malformed("8.2.1", "a blank around a value", BLOCK + literal("a", " b")),
    _malformed("8.2.2", "Connection", BLOCK + literal("connection", "keep-alive")),
    _malformed("8.2.2", "Transfer-Encoding", BLOCK + literal("transfer-encoding", "chunked")),
    _malformed("8.2.2", "TE of something else", PSEUDO + literal("te", "trailers, deflate")),
    _malformed("8.3", "an unknown pseudo-header", literal(":test", "a") + BLOCK),
    _malformed("8.3", "a pseudo-header of a response", b"\x88" + BLOCK),
    _malformed("8.3", "a pseudo-header behind a field", REGULAR + PSEUDO),
    _malformed("8.3.1", "an empty :path", b"\x83\x86" + literal(":path", "") + REGULAR),
    _malformed("8.3.1", "no :method", PSEUDO[1:] + REGULAR),
    _malformed("8.3.1", "no :scheme", PSEUDO[:1] + PSEUDO[2:] + REGULAR),
    _malformed("8.3.1", "no :path", b"\x83\x86" + REGULAR),
    _malformed("8.3.1", ":method twice", b"\x83" + BLOCK),
    _malformed("8.3.1", ":scheme twice", b"\x86" + BLOCK),
    _malformed("8.3.1", ":path twice", literal(":path", "/") + BLOCK),
    _malformed("8.1.1", "a content length that is less", BLOCK + literal("content-length", "1")),
    _malformed("8.1.1", "a content length that is more", BLOCK + literal("content-length", "11")),
    _malformed("8.1.1", "a content length twice", BLOCK + 2 * literal("content-length", "10")),
    _malformed("8.1.1", "a content length that is no number", BLOCK + literal("content-length", "+10")),
    Case(
        "8.1.1",
        "a content length that is right",
        headers(1, BLOCK + literal("content-length", "10")) + body(),
        ANSWERED,
        1,
    ),
)
_COMPRESSION = (
    _hpack("7541 2.3.3", "index 0", BLOCK + b"\x80"),
    _hpack("7541 2.3.3", "an index that nothing has", BLOCK + b"\xc6"),
    _hpack("7541 4.2", "a table size update behind a field", BLOCK + b"\x20"),
    _hpack("7541 5.1", "an integer that never ends", BLOCK + b"\xff" + b"\x80" * 40 + b"\x01"),
    _hpack("7541 5.2", "a string that is cut", BLOCK + b"\x00\x7f\x20abc"),
    _hpack("7541 5.2", "Huffman: padding of 8 bits", BLOCK + b"\x00\x01a\x83\x1f\xff\xff"),
    _hpack("7541 5.2", "Huffman: padding of zeros", BLOCK + b"\x00\x01a\x81\x18"),
    _hpack("7541 5.2", "Huffman: the end of string", BLOCK + b"\x00\x01a\x85\x1f\xff\xff\xff\xff"),
    _hpack("7541 6.1", "an index behind the table", BLOCK + b"\xff\x7f"),
    _hpack("7541 6.3", "a table size above the setting", b"\x3f\xe2\x1f" + BLOCK),
    Case(
        "7541 6.2.1",
        "an entry of the dynamic table is used",
        headers(1, b"\x83\x86\x44\x0f/test.Echo/Call\x41\x01a" + REGULAR)
        + body()
        + headers(3, b"\x83\x86\xbf\xbe" + REGULAR)
        + body(3),
        ANSWERED,
        3,
    ),
    Case("7541 6.3", "a table size of 0", headers(1, b"\x20" + BLOCK) + body(), ANSWERED, 1),
)
_FLOODS = (
    Case(
        "CVE-2023-44487",
        "rapid resets",
        b"".join(headers(2 * n + 1) + frame(RST, 0, 2 * n + 1, CANCEL) for n in range(40)),
        CALM,
    ),
    Case(
        "CVE-2023-44487",
        "rapid resets that we are made to send",
        b"".join(headers(2 * n + 1, b"\x80"[:0] + literal("A", "b")) for n in range(40)),
        CALM,
    ),
    Case("CVE-2019-9512", "pings", 80 * frame(PING, 0, 0, bytes(8)), CALM),
    Case("CVE-2019-9515", "settings", 80 * frame(SETTINGS), CALM),
    Case("CVE-2019-9513", "priorities", headers() + 80 * frame(PRIORITY, 0, 1, u32(0) + b"\1"), CALM),
    Case("CVE-2019-9518", "empty DATA", headers() + 80 * frame(DATA, 0, 1), CALM),
    Case("CVE-2024-27316", "CONTINUATION without end", headers(1, BLOCK, 0) + 9 * frame(CONTINUATION, 0, 1), CALM),
    Case(
        "CVE-2024-27316",
        "a field block without end",
        headers(1, BLOCK, 0) + 2 * frame(CONTINUATION, 0, 1, bytes(9000)),
        CALM,
    ),
    Case(
        "CVE-2016-6581",
        "a header list that grows out of the table",
        headers(1, b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096) + headers(3, BLOCK + b"\xbe" * 99),
        CALM,
    ),
    Case("6.9", "window updates of one byte", 80 * frame(WINDOW, 0, 0, u32(1)), CALM),
    Case("5.5", "unknown frames", 80 * frame(0x16), CALM),
    Case("8.1", "a request that never ends", headers(), H2Error.CANCEL, 1),
    Case("8.1", "a body that never ends", headers() + body(1, flags=0), H2Error.CANCEL, 1),
)

CASES: Final = (*_FRAMING, *_STATES, *_FRAMES, *_REQUESTS, *_COMPRESSION, *_FLOODS)
