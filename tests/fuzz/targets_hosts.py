"""The decoders of the host adapters and of upstreams, in the shape of targets.py."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ringfence import httpsig
from ringfence.errors import RingfenceError
from ringfence.plugin.assertion import AssertionIssuer, AssertionVerifier, Subject, published_keys, read_published_keys
from ringfence.plugin.hosts.authzen import messages
from ringfence.plugin.hosts.certificates import read_certificate
from ringfence.plugin.hosts.fields import check_fields
from ringfence.plugin.hosts.forwardauth.reading import read_question
from ringfence.plugin.hosts.framing import read_framing
from ringfence.plugin.hosts.hops import Hops, client_address
from ringfence.plugin.hosts.http1 import HeadParser
from ringfence.plugin.hosts.spoe.connection import Connection
from ringfence.plugin.hosts.spoe.frames import Message, Type, decode_messages, encode_frame
from ringfence.plugin.hosts.spoe.translation import read_headers, read_message
from ringfence.plugin.hosts.spoe.values import Reader, Value, encode_string, encode_value
from ringfence.plugin.hosts.targets import read_target
from tests.fuzz.target import Target

_HOPS = Hops.of(["10.0.0.0/8"])
_TARGET = httpsig.Target("GET", "h.test", "/")
_ISSUER = AssertionIssuer("g", bytes(32))
_VERIFIER = AssertionVerifier([_ISSUER.public], gateway="g", audience="a")
_TOKEN = _ISSUER.issue(_TARGET, "a", Subject("p"), now=0, jti="j" * 16).encode()
_HELLO = encode_frame(
    Type.HAPROXY_HELLO,
    b"".join(
        encode_string(name) + encode_value(value)
        for name, value in ((b"supported-versions", "2.0"), (b"max-frame-size", 16380), (b"capabilities", ""))
    ),
)
_ARGUMENT = encode_string(b"method") + encode_value("GET")
_MESSAGES = encode_string(b"ringfence") + b"\1" + _ARGUMENT
_QUESTION = (
    b"x-original-method:GET\nx-original-uri:/a?b\nx-original-host:h.test\nx-original-address:10.0.0.1\n"
    b"x-original-forwarded-for:192.0.2.1\nx-original-protocol:HTTP/1.1\ncookie:a=b"
)


def _pairs(data: bytes) -> list[tuple[str, str]]:
    lines = [line.split(":", 1) for line in data.decode("latin-1").split("\n") if ":" in line]
    return [(name, value) for name, value in lines]


def _framing(data: bytes) -> object:
    protocol, _, rest = data.decode("latin-1").partition("\n")
    length, _, coding = rest.partition("\n")
    return read_framing(protocol, length, coding)


def _message(data: bytes) -> object:
    # What the bytes lack of a message is given, so that those behind it are reached.
    arguments: dict[str, Value] = {
        "upstream": "s",
        "method": "GET",
        "target": "/",
        "version": "1.1",
        "headers": data,
        "source": None,
    }
    return read_message(Message("ringfence", arguments), _HOPS)


def _target(data: bytes) -> object:
    authority, _, raw = data.decode("latin-1").partition("\n")
    target = read_target("GET", authority, raw)
    # What is accepted is kept to the byte, or this is a finding.
    if target.path + (target.query if "?" in raw else "") != raw:
        raise AssertionError(raw)
    return target


def _authzen(data: bytes) -> None:
    for kind in (messages.Evaluations, messages.SubjectSearch, messages.ResourceSearch, messages.ActionSearch):
        with contextlib.suppress(RingfenceError):
            messages.decode(data, kind)
    messages.question(messages.decode(data, messages.Evaluation))


TARGETS: Mapping[str, Target] = {
    "hosts.authzen": Target(
        _authzen, (b'{"subject":{"type":"a","id":"b"},"action":{"name":"c"},"context":{"d":[1]}}',)
    ),
    "hosts.authzen_token": Target(lambda data: messages.read_token(data.decode("latin-1")), (b"MTI=",)),
    "hosts.certificate": Target(
        lambda data: read_certificate(data.decode("latin-1")),
        (b"MAMBAf8=", b"-----BEGIN%20CERTIFICATE-----%0AMAMBAf8=%0A-----END%20CERTIFICATE-----%0A"),
    ),
    "hosts.fields": Target(lambda data: check_fields(_pairs(data)), (b"connection:close\na:b",)),
    "hosts.forwardauth": Target(lambda data: read_question("s", _pairs(data), _HOPS), (_QUESTION,)),
    "hosts.framing": Target(_framing, (b"HTTP/1.1\n12\n",)),
    "hosts.hops": Target(
        lambda data: client_address("10.0.0.1", (data.decode("latin-1"),), _HOPS), (b"::1, 10.0.0.2",)
    ),
    "hosts.http1": Target(
        lambda data: HeadParser().parse(data), (b"GET /auth/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n",)
    ),
    "hosts.spoe_connection": Target(
        lambda data: Connection(16380).receive(data), (_HELLO, _HELLO + encode_frame(Type.NOTIFY, _MESSAGES, frame=1))
    ),
    "hosts.spoe_fields": Target(read_headers, (encode_string(b"host") + encode_string(b"a") + b"\0\0",)),
    "hosts.spoe_message": Target(_message, (encode_string(b"host") + encode_string(b"a") + b"\0\0",)),
    "hosts.spoe_messages": Target(lambda data: decode_messages(Reader(data)), (_MESSAGES,)),
    "hosts.target": Target(_target, (b"h.test:80\n/a/%2e?b",)),
    "upstream.assertion": Target(lambda data: _VERIFIER.verify(data.decode("latin-1"), _TARGET, now=0), (_TOKEN,)),
    "upstream.keys": Target(read_published_keys, (published_keys([_ISSUER.public]),)),
}
