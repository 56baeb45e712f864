"""Which key exchange groups Envoy negotiates: what docs/hosts/envoy.md says is what a handshake shows."""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.hosts.envoy_running import (
    TREE,
    RunningEnvoy,
    configuration,
    envoy_process,
    free_port,
    running_envoy,
    wait_for,
)
from tests.plugin.hosts.host_tls_groups import GROUPS, chosen

CURVES = "ecdh_curves: [X25519MLKEM768, X25519]"
PAGE = (TREE / "docs" / "hosts" / "envoy.md").read_text(encoding="utf-8")


def table() -> list[tuple[str, bool, bool]]:
    """The page's rows: group, whether the example negotiates it, whether Envoy can be told to."""
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (yes|no) \|", PAGE, re.MULTILINE)
    return [(name, example == "yes", can == "yes") for name, example, can in rows]


@pytest.fixture(scope="module")
def host() -> Iterator[RunningEnvoy]:
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as folder, running_envoy(Path(folder)) as running:
        yield running


def test_the_page_has_every_group() -> None:
    assert [name for name, _, _ in table()] == list(GROUPS)


def test_the_example_negotiates_the_groups_that_the_page_says(host: RunningEnvoy) -> None:
    assert {name for name in GROUPS if chosen(host.port, [name])} == {name for name, example, _ in table() if example}


def test_envoy_prefers_the_post_quantum_group_whatever_a_client_prefers(host: RunningEnvoy) -> None:
    assert chosen(host.port, ["secp256r1", "X25519", "X25519MLKEM768"]) == "X25519MLKEM768"


def test_a_client_without_ml_kem_falls_back_and_an_old_one_is_refused(host: RunningEnvoy) -> None:
    with host.connect() as connection:
        assert connection.version() == "TLSv1.3"
    context = ssl.create_default_context(cafile=str(host.folder / "clients.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", host.port)) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_envoy_can_be_told_to_negotiate_what_the_page_says(tmp_path: Path) -> None:
    names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
    possible = [name for name, _, can in table() if can]
    curves = ", ".join(names.get(name, name) for name in possible)
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as name, running_envoy(Path(name)) as first:
        port = free_port()
        text = configuration(first.folder, port, 9).replace(CURVES, f"ecdh_curves: [{curves}]")
        assert curves in text
        with envoy_process(tmp_path, text):
            wait_for(port)
            assert [group for group in GROUPS if chosen(port, [group])] == possible


def test_envoy_cannot_be_told_to_negotiate_what_the_page_says_it_cannot(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rf-envoy-") as name, running_envoy(Path(name)) as first:
        for group in [name for name, _, can in table() if not can]:
            text = configuration(first.folder, free_port(), 9).replace(CURVES, f"ecdh_curves: [{group}]")
            with envoy_process(tmp_path, text) as process:
                assert process.wait(20) != 0, group
            assert group in (tmp_path / "envoy.log").read_text(encoding="utf-8")
