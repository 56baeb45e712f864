"""Fields, targets, hops and exemptions: what every adapter refuses, whatever the host."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import httpsig
from ringfence.plugin.hosts.errors import HostError
from ringfence.plugin.hosts.exemptions import Exemptions, is_exempt
from ringfence.plugin.hosts.fields import (
    INITIALS,
    MAX_BYTES,
    MAX_FIELDS,
    check_connection,
    check_fields,
    refuse_own,
    set_by_others,
    single,
)
from ringfence.plugin.hosts.hops import MAX_HOPS, UNIX, Hops, client_address
from ringfence.plugin.hosts.targets import MAX_TARGET, read_target
from tests.plugin.hosts.hosts_variants import VARIANTS

OWN = Hops.of(["10.0.0.0/8", "fd00::/8"])


def code(error: pytest.ExceptionInfo[HostError]) -> str:
    return error.value.code.name


@pytest.mark.parametrize("value", ["close", "keep-alive", "close, TE", "upgrade", "", "x-other"])
def test_ordinary_connection_options_pass(value: str) -> None:
    check_connection(value)


@pytest.mark.parametrize(
    "value",
    [
        "signature",
        "Signature-Input",
        "close,content-digest",
        "\tAUTHORIZATION ",
        "dpop",
        "cookie",
        "host",
        "x-ringfence-",
        "keep-alive, X-Ringfence-Assertion",
        "content-length",
    ],
)
def test_connection_cannot_name_a_protected_field(value: str) -> None:
    with pytest.raises(HostError) as error:
        check_fields([("connection", value)])
    assert code(error) == "hosts.connection_names_field"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", ""),
        ("A", ""),
        ("", "x"),
        ("a:", ""),
        ("a", "b\r\nc: d"),
        ("a", "b\nc"),
        ("a", "\x00"),
        ("a", "\x7f"),
        ("a", "café"),
        ("a", "\u212a"),
        ("x_ringfence_assertion", ""),
        ("x-ringfence_a", ""),
        ("content_digest", ""),
        ("x_forwarded_for", ""),
        ("s\u0131gnature", ""),
    ],
)
def test_malformed_fields_and_look_alikes_are_refused(name: str, value: str) -> None:
    with pytest.raises(HostError) as error:
        check_fields([(name, value)])
    assert code(error) == "hosts.fields_malformed"


def test_fields_are_bounded_in_number_and_size() -> None:
    check_fields([("a", "b")] * MAX_FIELDS)
    for headers in ([("a", "b")] * (MAX_FIELDS + 1), [("a", "b" * MAX_BYTES)]):
        with pytest.raises(HostError) as error:
            check_fields(headers)
        assert code(error) == "hosts.fields_too_large"


def test_own_fields_are_refused_or_stripped() -> None:
    headers = [("a", "1"), ("x-ringfence-assertion", "forged"), ("x-ringfencex", "2")]
    assert [name for name, _ in headers if set_by_others(name)] == ["x-ringfence-assertion"]
    for name in ("forwarded", "x-forwarded-for", "x-forwarded-anything", "x-real-ip", "x-ringfence-"):
        assert set_by_others(name)
        assert name[0] in INITIALS
    refuse_own([("x-ringfencex", "")])
    with pytest.raises(HostError):
        refuse_own(headers)


def test_a_repeated_field_has_no_single_value() -> None:
    assert single([("a", "1"), ("b", "2")], "b") == "2"
    assert single([], "b") == ""
    with pytest.raises(HostError):
        single([("a", "1"), ("a", "1")], "a")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["6.6.6.6"], "192.0.2.1"),
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.1.1.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.1.1.1", ["nonsense, 192.0.2.7"], "192.0.2.7"),
        ("10.1.1.1", ["192.0.2.7", "10.2.2.2,10.3.3.3"], "192.0.2.7"),
        ("10.1.1.1", ["10.2.2.2"], "10.2.2.2"),
        ("fd00::1", ["2001:DB8::7"], "2001:db8::7"),
        ("::ffff:10.1.1.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        (UNIX, ["6.6.6.6"], UNIX),
    ],
)
def test_the_client_is_the_first_address_that_is_no_hop(peer: str, forwarded: list[str], client: str) -> None:
    assert client_address(peer, forwarded, OWN) == client


@pytest.mark.parametrize(
    ("peer", "forwarded"),
    [
        ("", []),
        ("host", []),
        ("10.1.1.1", [""]),
        ("10.1.1.1", ["192.0.2.7:80"]),
        ("10.1.1.1", ["[::1]"]),
        ("10.1.1.1", ["192.0.2.7, "]),
        ("10.1.1.1", ["010.1.1.1"]),
        ("fe80::1%eth0", []),
        ("10.1.1.1", ["unknown"]),
        ("10.1.1.1", ["10.0.0.1," * MAX_HOPS + "10.0.0.1"]),
    ],
)
def test_a_hop_that_cannot_be_understood_names_nobody(peer: str, forwarded: list[str]) -> None:
    with pytest.raises(HostError) as error:
        client_address(peer, forwarded, OWN)
    assert code(error) == "hosts.address_malformed"


@given(st.lists(st.text(max_size=20), max_size=5))
def test_whatever_a_stranger_forwards_it_stays_itself(forwarded: list[str]) -> None:
    assert client_address("192.0.2.1", forwarded, OWN) == "192.0.2.1"


@given(st.lists(st.ip_addresses(), min_size=1, max_size=6), st.text(max_size=10))
def test_nothing_left_of_the_client_is_read(addresses: list[ipaddress.IPv4Address], junk: str) -> None:
    claims = [str(address) for address in addresses if "%" not in str(address)] + ["192.0.2.9"]
    assert client_address("10.0.0.1", [junk.replace(",", ""), ",".join(claims)], OWN) == "192.0.2.9"


@pytest.mark.parametrize(
    "raw",
    [
        "/",
        "/a",
        "//",
        "/a//b",
        "/a%2Fb",
        "/a%20b?c=%00",
        "/a?",
        "/a;b=c,d:e@f!$&'()*+",
        "/...",
        "/a.b",
        "/.well-known/x",
        "/%252e%252e/",
        "/a?b=/../c",
        "/a..b/..c/d..",
    ],
)
def test_a_target_is_kept_to_the_byte(raw: str) -> None:
    target = read_target("GET", "h.test:8443", raw)
    path, mark, query = raw.partition("?")
    assert target == httpsig.Target("GET", "h.test:8443", path, "?" + query if mark else "?")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a",
        "*",
        "?a",
        "http://h.test/",
        "/..",
        "/a/../b",
        "/a/./b",
        "/.",
        "/%2e%2E/a",
        "/a/.%2e",
        "/..;/a",
        "/a/..;x=1/b",
        "/a/..%2fb",
        "/a%2f..%2fb",
        "/a%2F%2e%2e",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a b",
        "/a\tb",
        "/a\r\nb",
        "/a#b",
        "/café",
        "/a|b",
        "/a?b c",
        "/a?b#c",
        "/a?é",
        "/a\n",
        "/" + "a" * MAX_TARGET,
    ],
)
def test_a_target_that_two_programs_may_read_differently_is_refused(raw: str) -> None:
    with pytest.raises(HostError) as error:
        read_target("GET", "h.test", raw)
    assert code(error) == "hosts.target_malformed"


@pytest.mark.parametrize(
    ("method", "authority"),
    [
        ("", "h"),
        ("CONNECT", "h"),
        ("G T", "h"),
        ("GET\n", "h"),
        ("GET", ""),
        ("GET", "u@h"),
        ("GET", "h/p"),
        ("GET", "h:"),
        ("GET", "h, i"),
        ("GET", "[::1"),
        ("GET", "h:123456"),
        ("GET", "bücher.test"),
        ("A" * 33, "h"),
        ("GET", "h\n"),
    ],
)
def test_a_malformed_method_or_authority_is_refused(method: str, authority: str) -> None:
    with pytest.raises(HostError):
        read_target(method, authority, "/")


def test_the_variants_are_many_and_the_target_reader_knows_them_all() -> None:
    assert len(set(VARIANTS)) >= 200
    for variant in VARIANTS:
        try:
            target = read_target("GET", "h.test", variant)
        except HostError:
            continue
        assert target.path + (target.query if "?" in variant else "") == variant


SETTINGS = Exemptions(exempt=("/healthz",), preflight=("https://app.test",))
PREFLIGHT = [("origin", "https://app.test"), ("access-control-request-method", "POST")]


@pytest.mark.parametrize(
    ("target", "headers", "exempt"),
    [
        (httpsig.Target("GET", "h", "/healthz"), [], True),
        (httpsig.Target("HEAD", "h", "/healthz"), [], True),
        (httpsig.Target("POST", "h", "/healthz"), [], False),
        (httpsig.Target("GET", "h", "/healthz", "?a"), [], False),
        (httpsig.Target("GET", "h", "/healthz/"), [], False),
        (httpsig.Target("GET", "h", "/Healthz"), [], False),
        (httpsig.Target("GET", "h", "/%68ealthz"), [], False),
        (httpsig.Target("OPTIONS", "h", "/any"), PREFLIGHT, True),
        (httpsig.Target("OPTIONS", "h", "/any"), PREFLIGHT[:1], False),
        (httpsig.Target("OPTIONS", "h", "/any"), PREFLIGHT[1:], False),
        (httpsig.Target("OPTIONS", "h", "/any"), [("origin", "https://app.test.evil"), PREFLIGHT[1]], False),
        (httpsig.Target("OPTIONS", "h", "/any"), [*PREFLIGHT, PREFLIGHT[0]], False),
        (httpsig.Target("OPTIONS", "h", "/any"), [*PREFLIGHT, ("cookie", "a=b")], False),
        (httpsig.Target("GET", "h", "/any"), PREFLIGHT, False),
    ],
)
def test_only_what_is_named_is_exempt(target: httpsig.Target, headers: list[tuple[str, str]], exempt: bool) -> None:
    assert is_exempt(target, headers, SETTINGS) is exempt
    assert is_exempt(target, headers, Exemptions()) is False


@pytest.mark.parametrize("bad", [{"exempt": ["healthz"]}, {"exempt": ["/a?b"]}, {"preflight": ["*"]}, {"prefix": []}])
def test_an_exemption_is_exact(bad: dict[str, list[str]]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Exemptions)
