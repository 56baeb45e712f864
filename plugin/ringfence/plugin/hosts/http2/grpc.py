"""A unary gRPC call within an HTTP/2 request: its fields, its message, its deadline and its status. Pure.

By gRPC's "gRPC over HTTP2" (PROTOCOL-HTTP2). There is no compression: a message that says it is compressed is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ringfence.plugin.hosts.http2.errors import CallRefusedError
from ringfence.plugin.hosts.http2.fields import Fields
from ringfence.plugin.hosts.http2.inbound import PREFIX_BYTES

INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13

_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_CONTENT_TYPE: Final = re.compile(r"application/grpc(?:\+proto)?(?:;.*)?")


def _literal(name: bytes, value: bytes) -> bytes:
    # A literal that is never indexed in the table (RFC 7541 section 6.2.2), so that encoding keeps no state.
    return b"\x00" + _string(name) + _string(value)


def _string(value: bytes) -> bytes:
    # RFC 7541 sections 5.1 and 5.2, without Huffman coding.
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    rest, prefix = size - 127, bytearray((127,))
    while rest > 127:
        prefix.append(rest & 127 | 128)
        rest >>= 7
    prefix.append(rest)
    return bytes(prefix) + value


_OK: Final = b"\x88"
"""`:status: 200`, entry 8 of the static table (RFC 7541 appendix A)."""

RESPONSE_HEAD: Final = _OK + _literal(b"content-type", b"application/grpc")
RESPONSE_TRAILERS: Final = _literal(b"grpc-status", b"0")
BAD_METHOD: Final = _literal(b":status", b"405") + _literal(b"allow", b"POST")
BAD_CONTENT_TYPE: Final = _literal(b":status", b"415")


class NotGrpcError(CallRefusedError):
    """The request is no gRPC at all; `block` are the encoded fields of a plain HTTP answer."""

    def __init__(self, block: bytes, message: str) -> None:
        super().__init__(UNIMPLEMENTED, message)
        self.block = block


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the one method, by its fields. `timeout_s` is how long its caller waits; None: it does not say."""

    timeout_s: float | None = None


def accept(fields: Fields, path: str) -> Call:
    """The call that a request's fields make. Raises `CallRefusedError`: another path, another content type, a
    compression or a timeout that is none."""
    present = dict(fields)
    if present[":method"] != "POST":
        raise NotGrpcError(BAD_METHOD, "A call is a POST.")
    if not _CONTENT_TYPE.fullmatch(present.get("content-type", "")):
        raise NotGrpcError(BAD_CONTENT_TYPE, "A call's content type is application/grpc.")
    if present[":path"] != path:
        raise CallRefusedError(UNIMPLEMENTED, "There is one method here, and this is not it.")
    if present.get("grpc-encoding", "identity") != "identity":
        raise CallRefusedError(UNIMPLEMENTED, "Messages are not compressed here.")
    timeout = present.get("grpc-timeout")
    if timeout is None:
        return Call()
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise CallRefusedError(INVALID_ARGUMENT, "grpc-timeout is one to eight digits and a unit.")
    return Call(int(match[1]) * _UNITS[match[2]])


def check_start(start: bytes, limit: int) -> None:
    """Refuses a message by its first bytes, as far as they are there: compressed, or longer than `limit` bytes."""
    if start and start[0] != 0:
        raise CallRefusedError(UNIMPLEMENTED, "Messages are not compressed here.")
    if len(start) >= PREFIX_BYTES and int.from_bytes(start[1:PREFIX_BYTES], "big") > limit:
        raise CallRefusedError(RESOURCE_EXHAUSTED, f"A message has at most {limit} bytes.")


def read_message(body: bytes, limit: int) -> bytes:
    """The one message of a whole body. Raises `CallRefusedError` where that is not exactly one."""
    check_start(body[:PREFIX_BYTES], limit)
    if len(body) < PREFIX_BYTES or len(body) - PREFIX_BYTES != int.from_bytes(body[1:PREFIX_BYTES], "big"):
        raise CallRefusedError(INTERNAL, "A call's body is not exactly one message.")
    return body[PREFIX_BYTES:]


def write_message(message: bytes) -> bytes:
    """A message behind its prefix."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def failure(status: int, message: str) -> bytes:
    """The encoded fields of an answer that has a status and no message ("Trailers-Only")."""
    text = "".join(one if " " <= one <= "~" and one != "%" else _escaped(one) for one in message[:200])
    return RESPONSE_HEAD + _literal(b"grpc-status", str(status).encode()) + _literal(b"grpc-message", text.encode())


def _escaped(one: str) -> str:
    return "".join(f"%{byte:02X}" for byte in one.encode())
