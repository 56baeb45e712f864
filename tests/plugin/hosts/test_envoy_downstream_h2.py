"""Callers that speak HTTP/2 to Envoy: bodies without a length, and fields that HTTP/1 alone may have."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.hosts.envoy_h2_wire import DATA, END, END_HEADERS, HEADERS, PREFACE, RST, SETTINGS, frame, literal
from tests.plugin.hosts.envoy_running import RunningEnvoy, running_envoy
from tests.plugin.hosts.host_scenarios import shown


@pytest.fixture(scope="module")
def host() -> Iterator[RunningEnvoy]:
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as folder, running_envoy(Path(folder)) as running:
        yield running


def exchange(host: RunningEnvoy, *bodies: bytes, path: str = "/h2", fields: bytes = b"") -> int:
    """Sends one request, with a DATA frame for each body, and returns the type of the frame that ended it."""
    block = b"\x83\x87" + literal(":path", path) + literal(":authority", host.authority) + fields
    request = frame(HEADERS, END_HEADERS | (0 if bodies else END), 1, block)
    for number, body in enumerate(bodies, 1):
        request += frame(DATA, END if number == len(bodies) else 0, 1, body)
    context = ssl.create_default_context(cafile=str(host.folder / "clients.pem"))
    context.set_alpn_protocols(["h2"])
    with host.connect(context=context) as connection, connection.makefile("rb") as stream:
        assert connection.selected_alpn_protocol() == "h2"
        connection.sendall(PREFACE + frame(SETTINGS) + request)
        while True:
            head = stream.read(9)
            if not head:
                return 7
            stream.read(int.from_bytes(head[:3], "big"))
            if head[5:] == b"\0\0\0\1" and (head[3] == RST or head[4] & END):
                return head[3]


@pytest.mark.parametrize(
    ("bodies", "seen"),
    [((), "absent"), ((b"",), ""), ((b"abc",), b"abc".hex()), ((b"ab", b"c", b""), b"abc".hex())],
)
def test_a_body_without_a_length_is_seen_for_what_it_is(
    host: RunningEnvoy, bodies: tuple[bytes, ...], seen: str
) -> None:
    before = len(host.arrived)
    exchange(host, *bodies)
    assert len(host.arrived) == before + 1
    assert shown(host.arrived[-1])["body"] == seen
    assert host.arrived[-1].body == b"".join(bodies)


def test_fields_of_ours_are_stripped_in_any_form(host: RunningEnvoy) -> None:
    exchange(host, fields=literal("x-ringfence-assertion", "forged") + literal("x-ringfence-other", "forged"))
    assert host.arrived[-1].values("x-ringfence-assertion") == ["signed"]
    assert host.arrived[-1].values("x-ringfence-other") == []


@pytest.mark.parametrize(
    "fields",
    [
        *(literal("connection", "signature"), literal("transfer-encoding", "chunked"), literal("x_ringfence_a", "b")),
        *(literal("host", "other"), literal(":path", "/other"), literal("X-Capital", "a"), literal("a", "b\r\nc: d")),
    ],
)
def test_what_http_2_forbids_never_arrives_in_two_readings(host: RunningEnvoy, fields: bytes) -> None:
    before = len(host.arrived)
    exchange(host, fields=fields)
    for arrived in host.arrived[before:]:
        _, authority, path, _ = shown(arrived)["target"]
        assert (arrived.values("host"), arrived.target) == ([authority], path)
        assert not {"connection", "transfer-encoding", "x_ringfence_a"} & {name for name, _ in arrived.headers}


@pytest.mark.parametrize(
    "path", ["/a%2fb", "/a\\b", "/a#b", "//a/../b", "/%2e%2e/a", "a", "*", "http://other/", "/a b"]
)
def test_a_target_arrives_as_it_was_decided_on(host: RunningEnvoy, path: str) -> None:
    before = len(host.arrived)
    exchange(host, path=path)
    for arrived in host.arrived[before:]:
        assert shown(arrived)["target"][2] == arrived.target
