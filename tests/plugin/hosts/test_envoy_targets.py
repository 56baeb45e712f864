"""What is decided on is what the upstream receives: 200 spellings of a target, bodies in every form, channels."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.plugin.hosts.envoy_running import RunningEnvoy, running_envoy
from tests.plugin.hosts.envoy_targets import variants
from tests.plugin.hosts.host_scenarios import shown


@pytest.fixture(scope="module")
def host() -> Iterator[RunningEnvoy]:
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as folder, running_envoy(Path(folder)) as running:
        yield running


def test_every_spelling_of_a_target_is_refused_or_arrives_as_it_was_decided_on(host: RunningEnvoy) -> None:
    targets = list(variants())
    passed = 0
    for target in targets:
        before = len(host.arrived)
        reply = host.send("GET", target)
        if reply.status != 200:
            assert len(host.arrived) == before, target
            continue
        passed += 1
        assert len(host.arrived) == before + 1, target
        arrived = host.arrived[-1]
        method, authority, path, query = shown(arrived)["target"]
        assert (method, path + ("" if query == "?" and not arrived.target.endswith("?") else query)) == (
            arrived.method,
            arrived.target,
        ), target
        assert arrived.values("host") == [authority], target
    assert len(targets) >= 200
    assert 50 < passed < len(targets), "either nothing was refused, or everything"


@pytest.mark.parametrize("target", ["/public/../admin", "/public/%2e%2e/admin", "//admin", "/./admin"])
def test_what_envoy_normalises_is_decided_on_in_its_normal_form(host: RunningEnvoy, target: str) -> None:
    assert host.send("GET", target).status == 200
    assert host.arrived[-1].target == "/admin"
    assert shown(host.arrived[-1])["target"][2] == "/admin"


@pytest.mark.parametrize(
    "target", ["/public%2fadmin", "/public%5cadmin", "/a%2F..%2Fadmin", "/admin#x", "/\xff", "*", "admin"]
)
def test_what_can_be_read_twice_is_refused(host: RunningEnvoy, target: str) -> None:
    assert host.send("GET", target).status == 400


@pytest.mark.parametrize(
    "fields",
    [
        [("x_ringfence_assertion", "forged")],
        [("content-length", "5"), ("transfer-encoding", "chunked")],
        [("transfer-encoding", "chunked, identity")],
        [("content-length", "1"), ("content-length", "2")],
        [("host", "other")],
        [("x-large", "x" * 40_000)],
        [(f"x-{number}", "") for number in range(120)],
    ],
    ids=["underscore", "two framings", "unknown coding", "two lengths", "two hosts", "large", "many"],
)
def test_shapes_of_request_smuggling_never_arrive(host: RunningEnvoy, fields: list[tuple[str, str]]) -> None:
    before = len(host.arrived)
    assert host.send("GET", "/smuggled", fields).status in (0, 400, 431, 501)
    assert len(host.arrived) == before


def test_a_chunked_body_is_shown(host: RunningEnvoy) -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    head = (
        f"POST /chunked HTTP/1.1\r\nHost: {host.authority}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert host.raw(head.encode() + chunks).status == 200
    assert shown(host.arrived[-1])["body"] == b"abcde".hex()
    assert host.arrived[-1].body == b"abcde"


def test_an_empty_chunked_body_is_a_body(host: RunningEnvoy) -> None:
    head = (
        f"POST / HTTP/1.1\r\nHost: {host.authority}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
    )
    assert host.raw(head.encode()).status == 200
    assert shown(host.arrived[-1])["body"] == ""


def test_a_request_without_a_body_has_none(host: RunningEnvoy) -> None:
    assert host.send("GET", "/").status == 200
    assert shown(host.arrived[-1])["body"] == "absent"


def test_a_body_that_envoy_does_not_show_whole_is_partial(host: RunningEnvoy) -> None:
    body = bytes(range(256)) * 400
    assert host.send("POST", "/large", [("x-envoy-auth-partial-body", "false")], body).status == 200
    assert shown(host.arrived[-1])["body"] == "partial"
    assert host.arrived[-1].body == body


def test_bytes_of_every_value_are_shown_as_they_are(host: RunningEnvoy) -> None:
    body = bytes(range(256))
    assert host.send("POST", "/", [("x-bytes", "caf\xe9")], body).status == 200
    view = shown(host.arrived[-1])
    assert view["body"] == body.hex()
    assert ["x-bytes", "caf\xe9"] in view["headers"]


def test_repeated_fields_stay_apart(host: RunningEnvoy) -> None:
    assert host.send("GET", "/", [("signature", "a"), ("signature", "b, c")]).status == 200
    seen = [value for name, value in shown(host.arrived[-1])["headers"] if name == "signature"]
    assert seen == ["a", "b, c"] == host.arrived[-1].values("signature")


def test_a_client_certificate_becomes_the_channel(host: RunningEnvoy) -> None:
    request = f"GET / HTTP/1.1\r\nHost: {host.authority}\r\nConnection: close\r\n\r\n".encode()
    assert host.raw(request, certificate="caller").status == 200
    certificate = x509.load_pem_x509_certificate((host.folder / "caller.pem").read_bytes())
    assert shown(host.arrived[-1])["thumbprint"] == hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    assert host.raw(request).status == 200
    assert shown(host.arrived[-1])["thumbprint"] == ""


def test_an_exempt_path_is_not_decided_on_and_still_carries_no_field_of_ours(host: RunningEnvoy) -> None:
    forged = base64.b64encode(b"{}").decode()
    fields = [("x-ringfence-shown", forged), ("X-Ringfence-Assertion", "forged"), ("x-script", "deny")]
    fields.append(("cookie", "a=1; __Host-ringfence=b.c"))
    assert host.send("GET", "/healthz", fields).status == 200
    arrived = host.arrived[-1]
    assert [name for name, _ in arrived.headers if name.startswith("x-ringfence")] == []
    assert host.arrived[-1].values("cookie") == []
    # What only looks like the exempt path is decided on.
    for target in ("/healthz/", "/healthz/../admin", "/Healthz", "/healthz%20", "/healthz;a"):
        assert host.send("GET", target, [("x-script", "deny")]).status == 403
