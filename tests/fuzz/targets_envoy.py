"""The decoders of the Envoy adapter and its HTTP/2 server; see `targets.py`."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.plugin.hosts.extauthz._pb import check_pb2
from ringfence.plugin.hosts.extauthz.channel import read_channel
from ringfence.plugin.hosts.extauthz.inbound import Trust, read_check
from ringfence.plugin.hosts.http2 import grpc
from ringfence.plugin.hosts.http2.connection import Connection
from ringfence.plugin.hosts.http2.events import Request
from ringfence.plugin.hosts.http2.fields import FieldDecoder, check_request
from ringfence.plugin.hosts.http2.limits import Http2Limits
from tests.fuzz.target import Target

_METHOD = "/test.Echo/Call"
_TRUST = Trust(frozenset(("upstream",)), 1)
_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
_BLOCK = b"\x83\x86\x04\x0f/test.Echo/Call\x01\x01a\x0f\x10\x10application/grpc"
_CALL = (
    len(_BLOCK).to_bytes(3, "big")
    + b"\x01\x04\x00\x00\x00\x01"
    + _BLOCK
    + bytes.fromhex("00000700010000000100000000026869")
)
_FIELDS = {":method": b"GET", ":path": b"/", ":authority": b"a", "x-forwarded-for": b"::1, ::2"}
_CHECK = check_pb2.CheckRequest(
    attributes=check_pb2.AttributeContext(
        source=check_pb2.Peer(certificate=b"-----BEGIN%20CERTIFICATE-----%0AMAMC%0A-----END%20CERTIFICATE-----"),
        request=check_pb2.Request(
            http=check_pb2.HttpRequest(
                method=b"GET",
                path=b"/",
                host=b"a",
                header_map=check_pb2.HeaderMap(
                    headers=[
                        check_pb2.HeaderValue(key=name.encode(), raw_value=value) for name, value in _FIELDS.items()
                    ]
                ),
            )
        ),
        context_extensions=[check_pb2.HeaderValue(key=b"ringfence_upstream", value=b"upstream")],
    )
).SerializeToString()


def _connection(data: bytes) -> None:
    # Whatever comes behind a good opening gives events and bytes to send, and never raises.
    connection = Connection(Http2Limits(), 0.0)
    for part in (_OPENING, data[: len(data) // 2], data[len(data) // 2 :]):
        for event in connection.receive(part, 0.0):
            if isinstance(event, Request):
                connection.respond(event.stream, 0.0, grpc.RESPONSE_HEAD, event.body or b"x", grpc.RESPONSE_TRAILERS)
    connection.expire(100.0)
    connection.outgoing()


def _fields(data: bytes) -> object:
    fields = FieldDecoder(8192).decode(data)
    check_request(fields)
    return grpc.accept(fields, _METHOD)


TARGETS: Mapping[str, Target] = {
    "plugin.extauthz.channel": Target(
        read_channel, (b"-----BEGIN%20CERTIFICATE-----%0AMAMC%0A-----END%20CERTIFICATE-----",)
    ),
    "plugin.extauthz.check": Target(lambda data: read_check(data, _TRUST, read_channel), (_CHECK,)),
    "plugin.http2.connection": Target(_connection, (_CALL,)),
    "plugin.http2.fields": Target(_fields, (_BLOCK,)),
    "plugin.http2.message": Target(lambda data: grpc.read_message(data, 65_536), (b"\0\0\0\0\2hi",)),
}
