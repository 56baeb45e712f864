"""Reading a forward-auth question and writing its answer."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import urllib.parse

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import SocketPath
from ringfence.plugin.hosts.certificates import read_certificate
from ringfence.plugin.hosts.errors import HostError
from ringfence.plugin.hosts.forwardauth.reading import read_envoy, read_question, upstream_of
from ringfence.plugin.hosts.forwardauth.service import ForwardAuth, ForwardAuthSettings, document
from ringfence.plugin.hosts.forwardauth.writing import write_answer, write_auth_request
from ringfence.plugin.hosts.framing import read_framing
from ringfence.plugin.hosts.hops import NO_HOPS, Hops
from ringfence.plugin.hosts.http1 import HttpRequest
from ringfence.plugin.hosts.port import NO_CHANNEL, Answer, Inbound, Unseen
from ringfence.plugin.hosts.unix_peers import PeerSocket
from tests.plugin.hosts.hosts_scene import ScriptedGatekeeper

Headers = list[tuple[str, str]]
BASE: Headers = [
    ("host", "ringfence"),
    ("x-original-method", "POST"),
    ("x-original-uri", "/a%20b?c"),
    ("x-original-host", "h.test"),
    ("x-original-address", "192.0.2.1"),
    ("x-original-protocol", "HTTP/1.1"),
    ("cookie", "a=b"),
]


def test_a_question_becomes_the_request_that_it_is_about() -> None:
    inbound = read_question("service", BASE, NO_HOPS)
    assert (inbound.target.method, inbound.target.path, inbound.target.query) == ("POST", "/a%20b", "?c")
    assert inbound.headers == [("host", "h.test"), ("cookie", "a=b")]
    assert (inbound.source, inbound.upstream, inbound.body, inbound.channel) == (
        "192.0.2.1",
        "service",
        Unseen.ABSENT,
        NO_CHANNEL,
    )


@pytest.mark.parametrize(
    "further",
    [
        ("x-original-uri", "/b"),
        ("x-original-other", ""),
        ("x-ringfence-assertion", "x"),
        ("x-original-connection", "signature"),
        ("x-original-content-length", "-1"),
        ("x_original_a", "é"),
        ("x-original-certificate", "%%%"),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused(further: tuple[str, str]) -> None:
    with pytest.raises(HostError):
        read_question("service", [*BASE, further], NO_HOPS)


@pytest.mark.parametrize(
    "missing",
    [
        name
        for name, _ in BASE
        if name in ("x-original-method", "x-original-uri", "x-original-host", "x-original-address")
    ],
)
def test_a_question_without_its_target_or_source_is_refused(missing: str) -> None:
    with pytest.raises(HostError):
        read_question("service", [pair for pair in BASE if pair[0] != missing], NO_HOPS)


def test_the_client_is_read_from_configured_hops() -> None:
    headers = [*BASE, ("x-original-forwarded-for", "6.6.6.6, 198.51.100.7")]
    assert read_question("s", headers, NO_HOPS).source == "192.0.2.1"
    assert read_question("s", headers, Hops.of(["192.0.2.0/24"])).source == "198.51.100.7"


def test_envoy_asks_by_the_request_itself() -> None:
    headers = [("host", "h.test"), ("x-original-address", "192.0.2.1"), ("x-original-protocol", "HTTP/2"), ("a", "b")]
    inbound = read_envoy("service", "PUT", "/a?b", headers, NO_HOPS)
    assert (inbound.target.method, inbound.target.authority, inbound.target.path) == ("PUT", "h.test", "/a")
    assert inbound.body is Unseen.HIDDEN
    for wrong in ([*headers, ("x-original-uri", "/b")], headers[1:], [*headers, ("host", "i.test")]):
        with pytest.raises(HostError):
            read_envoy("service", "PUT", "/a?b", wrong, NO_HOPS)


@pytest.mark.parametrize(
    "target", ["/auth/", "/auth//", "/auth/Service", "/auth/a%20b", "/auth/-a", "/auth/" + "a" * 64]
)
def test_an_upstream_has_a_plain_name(target: str) -> None:
    with pytest.raises(HostError):
        upstream_of(target, "/auth/")


@pytest.mark.parametrize(
    ("protocol", "length", "coding", "body"),
    [
        ("HTTP/1.1", "", "", Unseen.ABSENT),
        ("HTTP/1.1", "0", "", Unseen.ABSENT),
        ("HTTP/1.1", "1", "", Unseen.HIDDEN),
        ("HTTP/1.1", "", "chunked", Unseen.HIDDEN),
        ("HTTP/2.0", "", "", Unseen.HIDDEN),
        ("HTTP/2.0", "0", "", Unseen.ABSENT),
        ("", "", "", Unseen.HIDDEN),
    ],
)
def test_a_body_is_absent_only_where_the_framing_says_so(protocol: str, length: str, coding: str, body: Unseen) -> None:
    assert read_framing(protocol, length, coding) is body


@pytest.mark.parametrize(
    ("length", "coding"), [("1", "chunked"), ("0", "chunked"), ("1, 1", ""), ("+1", ""), ("\u0661", "")]
)
def test_an_ambiguous_length_is_refused(length: str, coding: str) -> None:
    with pytest.raises(HostError):
        read_framing("HTTP/1.1", length, coding)


def test_a_certificate_is_read_in_both_spellings() -> None:
    der = b"\x30\x03abc" * 9
    thumbprint = hashlib.sha256(der).hexdigest()
    text = base64.b64encode(der).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"
    assert read_certificate(urllib.parse.quote(pem)).thumbprint == thumbprint
    assert read_certificate(text).thumbprint == thumbprint
    assert read_certificate(text).certificate == der


@given(st.text(max_size=200))
def test_no_certificate_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(HostError):
        read_certificate(text)


REFUSED = Answer(409, (), (("content-type", "application/problem+json"),), b'{"a":"\xc3\xa9"}')


def test_an_answer_is_written_for_each_host() -> None:
    allowed = Answer(200, forward=(("x-ringfence-assertion", "t"),), headers=(("x", "y"),))
    assert write_answer(allowed).headers == write_auth_request(allowed).headers == allowed.forward
    assert (write_answer(REFUSED).status, write_answer(REFUSED).body) == (409, REFUSED.body)
    reply = write_auth_request(REFUSED)
    assert (reply.status, reply.body) == (403, b"")
    assert dict(reply.headers)["x-ringfence-status"] == "409"
    assert dict(reply.headers)["x-ringfence-problem"] == '{"a":"?"}'
    assert write_auth_request(Answer(401)).status == 401


@pytest.mark.parametrize("status", [0, 100, 201, 204, 302, 600])
def test_an_answer_that_is_neither_allows_nothing(status: int) -> None:
    assert write_answer(Answer(status, forward=(("a", "b"),))).status == 500
    assert write_auth_request(Answer(status, forward=(("a", "b"),))).status == 403


class Broken:
    async def decide(self, inbound: Inbound) -> Answer:
        raise KeyError(inbound.upstream)


def question(path: str = "/auth/service", headers: Headers = BASE, method: str = "GET") -> HttpRequest:
    return HttpRequest(method, path, list(headers), b"")


def service(gatekeeper: ScriptedGatekeeper | Broken, **settings: object) -> ForwardAuth:
    return ForwardAuth(
        gatekeeper, msgspec.structs.replace(ForwardAuthSettings(PeerSocket(SocketPath("/s"))), **settings)
    )


async def test_the_service_routes_by_path() -> None:
    gatekeeper = ScriptedGatekeeper()
    auth = ForwardAuth(
        gatekeeper,
        ForwardAuthSettings(PeerSocket(SocketPath("/s"))),
        further={"/.well-known/keys": document("application/json", lambda: b"{}")},
    )
    assert (await auth.handle(question())).status == 200
    assert (await auth.handle(question("/auth-request/service"))).status == 200
    assert (await auth.handle(question("/auth/service/more"))).status == 404
    assert (await auth.handle(question("/auth-request/service?x"))).status == 403
    assert (await auth.handle(question("/else"))).status == 404
    assert (await auth.handle(question("/.well-known/keys"))).body == b"{}"
    assert (await auth.handle(question("/.well-known/keys", method="POST"))).status == 404
    assert len(gatekeeper.seen) == 2


async def test_a_gatekeeper_that_breaks_its_word_or_is_late_denies() -> None:
    assert (await service(Broken()).handle(question())).status == 500
    slow = ScriptedGatekeeper(delay_s=5)
    assert (await service(slow, timeout_s=0.01).handle(question())).status == 504
    assert (await service(slow, timeout_s=0.01).handle(question("/auth-request/service"))).status == 403


async def test_an_exempt_path_is_not_decided() -> None:
    from ringfence.plugin.hosts.exemptions import Exemptions

    gatekeeper = ScriptedGatekeeper()
    auth = service(gatekeeper, exemptions=Exemptions(exempt=("/healthz",)))
    headers = [("x-original-method", "GET"), ("x-original-uri", "/healthz"), *BASE[3:]]
    reply = await auth.handle(question(headers=headers))
    assert (reply.status, reply.headers, gatekeeper.seen) == (200, (), [])
