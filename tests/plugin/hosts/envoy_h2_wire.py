"""Bytes of HTTP/2 as a test writes them, right or wrong, and what came back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from struct import pack

from ringfence.plugin.hosts.http2.errors import H2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
METHOD = "/test.Echo/Call"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` lies about the payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A field that is not indexed, without Huffman coding."""
    return b"\0" + string(name.encode("latin-1")) + string(value.encode("latin-1"))


def string(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes((len(value),)) + value
    rest, prefix = len(value) - 127, b"\x7f"
    while rest > 127:
        prefix += bytes((rest & 127 | 128,))
        rest >>= 7
    return prefix + bytes((rest,)) + value


PSEUDO = b"\x83\x86" + literal(":path", METHOD) + literal(":authority", "a")
REGULAR = literal("content-type", "application/grpc") + literal("te", "trailers")
BLOCK = PSEUDO + REGULAR


def call(stream: int = 1, block: bytes = BLOCK, message: bytes = b"hello") -> bytes:
    """A whole call."""
    return headers(stream, block) + body(stream, message)


def headers(stream: int = 1, block: bytes = BLOCK, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block)


def body(stream: int = 1, message: bytes = b"hello", flags: int = END) -> bytes:
    return frame(DATA, flags, stream, prefixed(message))


def prefixed(message: bytes) -> bytes:
    return b"\0" + pack(">I", len(message)) + message


def setting(name: int, value: int) -> bytes:
    return pack(">HI", name, value)


def u32(value: int) -> bytes:
    return pack(">I", value)


@dataclass
class Seen:
    """What a server sent: its frames as (type, flags, stream, payload), and whether it closed the connection."""

    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    closed: bool = False

    def of(self, kind: int, stream: int | None = None) -> list[tuple[int, int, int, bytes]]:
        return [one for one in self.frames if one[0] == kind and stream in (None, one[2])]

    def reset(self, stream: int) -> H2Error | None:
        found = self.of(RST, stream)
        return H2Error(int.from_bytes(found[0][3], "big")) if found else None

    @property
    def goaway(self) -> H2Error | None:
        found = self.of(GOAWAY)
        return H2Error(int.from_bytes(found[-1][3][4:8], "big")) if found else None

    def ended(self, stream: int) -> bool:
        return any(flags & END for _, flags, _, _ in self.of(HEADERS, stream))

    def message(self, stream: int) -> bytes:
        return b"".join(payload for *_, payload in self.of(DATA, stream))[5:]


class Client:
    """A connection to a server's Unix socket that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.seen = Seen()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.seen.closed = True

    async def read_one(self) -> bool:
        """Reads one frame; false at the end."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.seen.closed = True
            return False
        stream = int.from_bytes(head[5:], "big") & 0x7FFF_FFFF
        self.seen.frames.append((head[3], head[4], stream, payload))
        return True

    def close(self) -> None:
        self._writer.close()
