"""Envoy's messages as the decision core sees them, and its answers as Envoy does: nothing is believed or lost."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import SocketPath
from ringfence.plugin.hosts.extauthz._pb import check_pb2
from ringfence.plugin.hosts.extauthz.adapter import ExtAuthz
from ringfence.plugin.hosts.extauthz.answer import write_answer
from ringfence.plugin.hosts.extauthz.channel import Channels, read_channel
from ringfence.plugin.hosts.extauthz.errors import (
    ANSWER_UNUSABLE,
    CHANNEL_MALFORMED,
    MALFORMED,
    MISCONFIGURED,
    REQUEST_REFUSED,
    SOURCE_UNKNOWN,
    ExtAuthzError,
)
from ringfence.plugin.hosts.extauthz.inbound import Check, Trust, read_check
from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings
from ringfence.plugin.hosts.port import NO_CHANNEL, Answer, Inbound, Unseen

DER = b"\x30\x03\x02\x01\x05"
PEM = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(DER) + b"\n-----END CERTIFICATE-----\n"
PSEUDO = {":method": "POST", ":path": "/v1/jobs?a=1", ":authority": "localhost:8443", ":scheme": "https"}


def message(
    *fields: tuple[str, str],
    pseudo: dict[str, str] | None = None,
    body: bytes = b"",
    extensions: dict[str, str] | None = None,
    source: str = "192.0.2.1",
    certificate: bytes = b"",
) -> bytes:
    """A CheckRequest as Envoy 1.40 writes it."""
    request = check_pb2.CheckRequest()
    attributes = request.attributes
    attributes.source.address.socket_address.address = source.encode()
    attributes.source.certificate = certificate
    for key, value in ({"ringfence_upstream": "upstream"} if extensions is None else extensions).items():
        attributes.context_extensions.add(key=key.encode(), value=value.encode())
    http, all_pseudo = attributes.request.http, PSEUDO | (pseudo or {})
    http.method, http.path, http.host = (
        all_pseudo[name].encode("latin-1") for name in (":method", ":path", ":authority")
    )
    http.raw_body = body
    for name, value in [*all_pseudo.items(), *fields]:
        http.header_map.headers.add(key=name.encode("latin-1"), raw_value=value.encode("latin-1"))
    return request.SerializeToString()


def read(data: bytes, hops: int = 0) -> Check:
    return read_check(data, Trust(frozenset(("upstream",)), hops), read_channel)


def refused(data: bytes, hops: int = 0) -> ExtAuthzError:
    with pytest.raises(ExtAuthzError) as caught:
        read(data, hops)
    return caught.value


def test_a_request_is_read_as_it_is() -> None:
    check = read(message(("accept", "*/*"), ("signature", "a"), ("signature", "b"), ("x-bytes", "\xe9")))
    inbound = check.inbound
    target = inbound.target
    assert (target.method, target.authority, target.path, target.query) == (
        "POST",
        "localhost:8443",
        "/v1/jobs",
        "?a=1",
    )
    assert inbound.headers == (("accept", "*/*"), ("signature", "a"), ("signature", "b"), ("x-bytes", "\xe9"))
    assert (inbound.source, inbound.upstream, inbound.channel) == ("192.0.2.1", "upstream", NO_CHANNEL)
    assert check.stripped == frozenset()


@pytest.mark.parametrize(
    ("path", "parts"), [("/", ("/", "?")), ("/?", ("/", "?")), ("/a??", ("/a", "??")), ("/a%3F?b", ("/a%3F", "?b"))]
)
def test_a_path_is_cut_at_its_first_question_mark(path: str, parts: tuple[str, str]) -> None:
    target = read(message(pseudo={":path": path})).inbound.target
    assert (target.path, target.query) == parts


@pytest.mark.parametrize(
    "pseudo",
    [
        *({":path": path} for path in ("", "*", "a", "http://a/", "/a b", "/\xe9", "/a#b", "/\x7f", "/a\tb")),
        *({":authority": name} for name in ("", "a,b", "a b", "a@b", "\xe9", "a:b", "a:123456", "[::1", "a/")),
        *({":method": name} for name in ("", "GE T", "G\xc9T", "GET\r")),
    ],
    ids=str,
)
def test_a_target_that_two_programs_could_read_in_two_ways_is_refused(pseudo: dict[str, str]) -> None:
    assert refused(message(pseudo=pseudo)).code == REQUEST_REFUSED


@pytest.mark.parametrize("authority", ["localhost", "a.b:1", "127.0.0.1:65535", "[::1]:8443", "[2001:db8::1]"])
def test_a_host_and_a_port_are_an_authority(authority: str) -> None:
    assert read(message(pseudo={":authority": authority})).inbound.target.authority == authority


def test_envoy_may_not_contradict_itself() -> None:
    data = check_pb2.CheckRequest.FromString(message())
    data.attributes.request.http.path = b"/other"
    assert refused(data.SerializeToString()).code == MALFORMED
    data = check_pb2.CheckRequest.FromString(message((":path", "/other")))
    assert refused(data.SerializeToString()).code == MALFORMED


def test_what_a_wrong_configuration_sends_is_refused_with_what_to_change() -> None:
    data = check_pb2.CheckRequest.FromString(message())
    data.attributes.request.http.ClearField("header_map")
    error = refused(data.SerializeToString())
    assert (error.code, error.field) == (MISCONFIGURED, "encode_raw_headers")
    for extensions in ({}, {"ringfence_upstream": "other"}, {"ringfence_upstream": ""}):
        assert refused(message(extensions=extensions)).code == MISCONFIGURED
    assert refused(b"\xff").code == MALFORMED


@pytest.mark.parametrize("name", ["x-ringfence-assertion", "x_ringfence_assertion", "x-ringfence_a", "x-ringfence-"])
def test_fields_of_our_own_are_taken_out_and_named(name: str) -> None:
    check = read(message((name, "forged"), ("x-ringfenced", "kept")))
    assert check.stripped == {name}
    assert check.inbound.headers == (("x-ringfenced", "kept"),)


@pytest.mark.parametrize("value", ["signature", "close, Content-Digest", "AUTHORIZATION", "a,x-ringfence-b", "host"])
def test_a_connection_field_that_names_a_covered_one_is_refused(value: str) -> None:
    error = refused(message(("connection", value)))
    assert (error.code, error.field) == (REQUEST_REFUSED, "connection")
    assert read(message(("connection", "close, x-other"))).inbound.headers


@pytest.mark.parametrize(
    ("hops", "forwarded", "source"),
    [
        (0, [], "192.0.2.1"),
        (0, ["203.0.113.9"], "192.0.2.1"),
        (1, ["198.51.100.7, 192.0.2.1"], "198.51.100.7"),
        (1, ["203.0.113.9, 198.51.100.7", "192.0.2.1"], "198.51.100.7"),
        (2, ["203.0.113.9,198.51.100.7,192.0.2.1"], "203.0.113.9"),
        (1, ["2001:DB8::0:1, 192.0.2.1"], "2001:db8::1"),
    ],
)
def test_the_source_is_what_the_outermost_trusted_hop_added(hops: int, forwarded: list[str], source: str) -> None:
    data = message(*(("x-forwarded-for", value) for value in forwarded))
    assert read(data, hops).inbound.source == source


@pytest.mark.parametrize(
    "forwarded", ["", "192.0.2.1", "unknown, 192.0.2.1", "1.2.3, 192.0.2.1", "1.2.3.4:5, 192.0.2.1"]
)
def test_a_source_that_is_not_known_is_refused(forwarded: str) -> None:
    assert refused(message(("x-forwarded-for", forwarded)), hops=1).code == SOURCE_UNKNOWN
    assert refused(message(source="")).code == SOURCE_UNKNOWN


SHOWN = {"ringfence_upstream": "upstream", "ringfence_body": "shown"}
HIDDEN = {"ringfence_upstream": "upstream"}
PARTIAL = "x-envoy-auth-partial-body"


@pytest.mark.parametrize(
    ("fields", "body", "extensions", "seen"),
    [
        ([(PARTIAL, "false")], b"abc", SHOWN, b"abc"),
        ([(PARTIAL, "false")], b"", SHOWN, b""),
        ([(PARTIAL, "true")], b"abc", SHOWN, Unseen.PARTIAL),
        ([(PARTIAL, "false"), (PARTIAL, "false")], b"abc", SHOWN, Unseen.PARTIAL),
        ([(PARTIAL, "False")], b"abc", SHOWN, Unseen.PARTIAL),
        ([], b"abc", SHOWN, Unseen.PARTIAL),
        ([], b"", SHOWN, Unseen.ABSENT),
        ([], b"", HIDDEN, Unseen.HIDDEN),
        ([("content-length", "0")], b"", HIDDEN, Unseen.ABSENT),
        ([("content-length", "5")], b"", HIDDEN, Unseen.HIDDEN),
        ([("content-length", "0"), ("content-length", "5")], b"", HIDDEN, Unseen.HIDDEN),
    ],
)
def test_a_body_is_whole_partial_hidden_or_absent(
    fields: list[tuple[str, str]], body: bytes, extensions: dict[str, str], seen: bytes | Unseen
) -> None:
    assert read(message(*fields, body=body, extensions=extensions)).inbound.body == seen


def test_a_certificate_is_the_channel() -> None:
    channel = read(message(certificate=quote(PEM + PEM, safe="").encode())).inbound.channel
    assert (channel.thumbprint, channel.certificate) == (hashlib.sha256(DER).hexdigest(), PEM + PEM)


@pytest.mark.parametrize(
    "pem", [b"x", PEM[:40], PEM.replace(b"MAM", b"M*M"), b"-----BEGIN CERTIFICATE-----\n=\n" + PEM]
)
def test_what_is_no_certificate_is_refused(pem: bytes) -> None:
    assert refused(message(certificate=quote(pem).encode())).code == CHANNEL_MALFORMED
    assert refused(message(certificate=quote(PEM).encode() * 5000)).code == CHANNEL_MALFORMED


def test_only_so_many_channels_are_remembered() -> None:
    channels = Channels(2)
    encoded = [quote(PEM + b"\n" * count).encode() for count in range(4)]
    first = channels.read(encoded[0])
    assert channels.read(encoded[0]) is first
    for one in encoded[1:]:
        channels.read(one)
    assert channels.read(encoded[0]) is not first


class Fixed:
    """A gatekeeper with one answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[Inbound] = []

    async def decide(self, inbound: Inbound) -> Answer:
        self.seen.append(inbound)
        return self.answer


async def answered(answer: Answer, data: bytes) -> tuple[check_pb2.CheckResponse, Fixed]:
    gatekeeper = Fixed(answer)
    response = await ExtAuthz(gatekeeper, ExtAuthzSettings(SocketPath("/x"), (0,), ("upstream",))).check(data)
    return check_pb2.CheckResponse.FromString(response), gatekeeper


async def test_an_allowed_request_gets_our_fields_in_the_place_of_the_callers() -> None:
    answer = Answer(200, forward=(("x-ringfence-assertion", "signed"),))
    forged = message(("x-ringfence-assertion", "forged"), ("x-ringfence-other", "forged"))
    response, gatekeeper = await answered(answer, forged)
    (option,) = response.ok_response.headers
    assert (option.header.key, option.header.value) == (b"x-ringfence-assertion", b"signed")
    assert option.append_action == check_pb2.OVERWRITE_IF_EXISTS_OR_ADD
    assert list(response.ok_response.headers_to_remove) == [b"x-ringfence-other"]
    assert response.status.code == 0
    assert len(gatekeeper.seen) == 1


@pytest.mark.parametrize(
    ("sent", "kept"), [("__Host-ringfence=a.b", ""), ("a=1; __Host-ringfence=a.b; c=2", "a=1; c=2"), ("a=1", None)]
)
async def test_the_session_cookie_of_a_browser_stays_here(sent: str, kept: str | None) -> None:
    response, _ = await answered(Answer(200), message(("cookie", sent)))
    allowed = response.ok_response
    assert [(one.header.key, one.header.value) for one in allowed.headers] == (
        [(b"cookie", kept.encode())] if kept else []
    )
    assert list(allowed.headers_to_remove) == ([b"cookie"] if kept == "" else [])


@pytest.mark.parametrize(
    ("status", "seen"), [(401, 401), (403, 403), (409, 409), (429, 429), (503, 503), (499, 403), (599, 503), (201, 403)]
)
async def test_a_refusal_keeps_its_status_where_envoy_knows_it_and_never_allows(status: int, seen: int) -> None:
    answer = Answer(status, headers=(("www-authenticate", "A"), ("www-authenticate", "B")), body=b"{}")
    response, _ = await answered(answer, message())
    denied = response.denied_response
    assert (response.status.code, denied.status.code, denied.body) == (7, seen, b"{}")
    assert not response.HasField("ok_response")
    assert [one.append_action for one in denied.headers] == [
        check_pb2.OVERWRITE_IF_EXISTS_OR_ADD,
        check_pb2.APPEND_IF_EXISTS_OR_ADD,
    ]


async def test_what_the_caller_did_wrong_is_a_problem_and_nobody_is_asked() -> None:
    response, gatekeeper = await answered(Answer(200), message(("connection", "signature")))
    problem = json.loads(response.denied_response.body)
    assert (response.denied_response.status.code, problem["code"]) == (400, "extauthz.request_refused")
    assert gatekeeper.seen == []


async def test_what_envoy_did_wrong_is_an_error_to_envoy() -> None:
    with pytest.raises(ExtAuthzError):
        await answered(Answer(200), message(extensions={}))


@pytest.mark.parametrize("field", [("x\r\n", "a"), ("", "a"), ("x", "a\r\nb"), ("x", "\xe9"), ("x", "\0")])
@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_that_cannot_be_sent_is_none(status: int, field: tuple[str, str]) -> None:
    with pytest.raises(ExtAuthzError) as caught:
        write_answer(Answer(status, forward=(field,), headers=(field,)), ())
    assert caught.value.code == ANSWER_UNUSABLE


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        inbound = read(data).inbound
    except ExtAuthzError:
        return
    assert inbound.upstream == "upstream"
