"""The frames of SPOP 2.0. Pure: bytes in, frames out. Source: HAProxy, doc/SPOE.txt, section 3.2."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ringfence.plugin.hosts.spoe.values import Reader, Value, encode_integer, encode_string, encode_value, violated

VERSION: Final = "2.0"
PIPELINING: Final = "pipelining"
LENGTH_BYTES: Final = 4
SMALLEST_FRAME: Final = 256
"""Bytes of the smallest `max-frame-size` that the protocol allows."""

_FIN: Final = 0x1
_ABORT: Final = 0x2
_SET_VARIABLE: Final = 1
_TRANSACTION: Final = 2


class Type(enum.IntEnum):
    """The types of frames; UNSET continues a fragmented one."""

    UNSET = 0
    HAPROXY_HELLO = 1
    HAPROXY_DISCONNECT = 2
    NOTIFY = 3
    AGENT_HELLO = 101
    AGENT_DISCONNECT = 102
    ACK = 103


class Status(enum.IntEnum):
    """Why a connection ends, section 3.3."""

    NORMAL = 0
    TIMEOUT = 2
    TOO_BIG = 3
    INVALID = 4
    VERSION_MISSING = 5
    SIZE_MISSING = 6
    CAPABILITIES_MISSING = 7
    VERSION_UNSUPPORTED = 8
    SIZE_BAD = 9
    FRAGMENTATION = 10


_KNOWN: Final = frozenset(Type)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as read. `payload` begins at `start` in `data`."""

    type: Type
    final: bool
    aborted: bool
    stream: int
    frame: int
    data: bytes = field(repr=False)
    start: int

    def payload(self) -> Reader:
        """A reader of the payload."""
        return Reader(self.data, self.start)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a NOTIFY frame."""

    name: str
    arguments: dict[str, Value] = field(repr=False)


def decode_frame(data: bytes) -> Frame:
    """The frame in `data`, which is without its length. Raises `hosts.protocol_violated`."""
    reader = Reader(data)
    kind = reader.byte()
    if kind not in _KNOWN:
        raise violated("a frame has an unknown type")
    flags = int.from_bytes(reader.take(4), "big")
    stream, frame = reader.integer(), reader.integer()
    return Frame(Type(kind), bool(flags & _FIN), bool(flags & _ABORT), stream, frame, data, reader.position)


def decode_messages(reader: Reader) -> list[Message]:
    """The messages of a NOTIFY frame, at most 16. Raises `hosts.protocol_violated`."""
    messages: list[Message] = []
    while not reader.ended:
        if len(messages) >= 16:
            raise violated("there are too many messages")
        name = reader.name()
        arguments: dict[str, Value] = {}
        for _ in range(reader.byte()):
            argument = reader.name()
            if argument in arguments:
                raise violated("an argument is repeated")
            arguments[argument] = reader.value()
        messages.append(Message(name, arguments))
    return messages


def encode_frame(kind: Type, payload: bytes, *, stream: int = 0, frame: int = 0) -> bytes:
    """A whole frame with its length before it."""
    body = b"".join((bytes((kind,)), _FIN.to_bytes(4, "big"), encode_integer(stream), encode_integer(frame), payload))
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def encode_hello(max_frame_size: int) -> bytes:
    """The agent's hello. Only pipelining is offered: an answer goes where its question came from."""
    return encode_frame(
        Type.AGENT_HELLO,
        _pairs((("version", VERSION), ("max-frame-size", max_frame_size), ("capabilities", PIPELINING))),
    )


def encode_disconnect(status: Status) -> bytes:
    """The agent's last frame."""
    message = status.name.lower().replace("_", " ")
    return encode_frame(Type.AGENT_DISCONNECT, _pairs((("status-code", int(status)), ("message", message))))


def encode_ack(stream: int, frame: int, variables: Sequence[tuple[str, bool | int | str]]) -> bytes:
    """The answer to one NOTIFY: each variable set for the transaction."""
    actions = b"".join(
        bytes((_SET_VARIABLE, 3, _TRANSACTION)) + encode_string(name.encode("ascii")) + encode_value(value)
        for name, value in variables
    )
    return encode_frame(Type.ACK, actions, stream=stream, frame=frame)


def _pairs(pairs: Sequence[tuple[str, str | int]]) -> bytes:
    return b"".join(encode_string(name.encode("ascii")) + encode_value(value) for name, value in pairs)
