"""The frames of HTTP/2 (RFC 9113 sections 4 and 6): their layout, and nothing of what they mean. Pure."""

from __future__ import annotations

import enum
from struct import Struct
from typing import Final

from ringfence.plugin.hosts.http2.errors import H2ConnectionError, H2Error

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = Struct(">HBBBI")
"""A frame's header: the upper 16 and the lower 8 bits of its length, type, flags, stream."""

HEADER_BYTES: Final = HEADER.size
STREAM_MASK: Final = 0x7FFF_FFFF


class Type(enum.IntEnum):
    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


# Plain integers: the flags of every frame are tested against them.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20


class Setting(enum.IntEnum):
    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


_U32 = Struct(">I")
_GOAWAY = Struct(">II")
_SETTING = Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; `payload` is no longer than its receiver accepts."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings_frame(values: dict[Setting, int]) -> bytes:
    return frame(Type.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def reset_frame(stream: int, number: H2Error) -> bytes:
    return frame(Type.RST_STREAM, 0, stream, _U32.pack(number))


def goaway_frame(last: int, number: H2Error) -> bytes:
    return frame(Type.GOAWAY, 0, 0, _GOAWAY.pack(last, number))


def window_frame(stream: int, credit: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, 0, stream, _U32.pack(credit))


def u32(payload: bytes) -> int:
    """The four bytes of a RST_STREAM or WINDOW_UPDATE payload. Raises FRAME_SIZE_ERROR."""
    if len(payload) != _U32.size:
        raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, f"A payload has {len(payload)} bytes where 4 are due.")
    return int.from_bytes(payload, "big")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS payload, in their order. Raises FRAME_SIZE_ERROR."""
    if len(payload) % _SETTING.size:
        raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, f"A SETTINGS payload has {len(payload)} bytes.")
    return list(_SETTING.iter_unpack(payload))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The content without its padding (RFC 9113 section 6.1). Raises PROTOCOL_ERROR where the padding is too long."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, "A padded frame has no padding length.")
    padding = payload[0]
    if padding >= len(payload):
        raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A frame's padding is longer than the frame.")
    return payload[1 : len(payload) - padding]


def header_fragment(flags: int, stream: int, payload: bytes) -> bytes:
    """The field-block fragment of a HEADERS frame (RFC 9113 section 6.2), without padding and priority."""
    content = unpadded(flags, payload)
    if not flags & PRIORITISED:
        return content
    check_priority(stream, content[:5])
    return content[5:]


def check_priority(stream: int, fields: bytes) -> None:
    """Checks the five bytes of a priority, whose signal is ignored. Raises FRAME_SIZE_ERROR or PROTOCOL_ERROR.

    A stream that depends on itself is refused as RFC 7540 section 5.3.1 asked; RFC 9113 only deprecates the scheme.
    """
    if len(fields) != 5:
        raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, f"A priority has {len(fields)} bytes where 5 are due.")
    if int.from_bytes(fields[:4], "big") & STREAM_MASK == stream:
        raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A stream depends on itself.")


def need_stream(stream: int) -> None:
    """Refuses a frame of a stream that names none."""
    if stream == 0:
        raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A frame names no stream.")


def need_no_stream(stream: int) -> None:
    """Refuses a frame of the connection that names a stream."""
    if stream != 0:
        raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A frame of the connection names a stream.")
