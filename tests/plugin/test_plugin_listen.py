"""Where a gateway listens: never on the network, never over another's socket, and bad addresses are one clear error."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from ringfence.plugin.builtin.listen import open_listener
from ringfence.plugin.errors import LISTEN_FAILED, GateError


def refuse(address: str) -> str:
    with pytest.raises(GateError) as caught:
        open_listener(address)
    assert (caught.value.code, caught.value.field) == (LISTEN_FAILED, "listen")
    return caught.value.message


@pytest.mark.parametrize(
    "address",
    [
        *("", "unix:", ":8440", "8440", "127.0.0.1", "127.0.0.1:", "127.0.0.1:port", "localhost:8440"),
        *("0.0.0.0:8440", "192.0.2.1:8440", "[::]:8440", "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:99999999999"),
        *("tcp:127.0.0.1:8440", "unix:/dev/null/agent.sock", "unix:/tmp/\0", "unix:/tmp/" + "x" * 120),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str) -> None:
    assert "cannot listen" in refuse(address)


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1:0", socket.AF_INET), ("127.8.0.1:0", socket.AF_INET)])
def test_a_loopback_address_is_listened_on(address: str, family: socket.AddressFamily) -> None:
    with open_listener(address) as listener:
        host, port = listener.getsockname()[:2]
        assert address.startswith(host)
        with socket.socket(family) as client:
            client.connect((host, port))
        assert "in use" in refuse(f"{host}:{port}")


async def test_an_answer_over_loopback_is_sent_without_delay() -> None:
    delays = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made = transport.get_extra_info("socket")
            delays.append(not made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    with open_listener("127.0.0.1:0") as listener:
        server = await asyncio.get_running_loop().create_server(Accepted, sock=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()
    assert delays == [False]


def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "gateway.sock"
    mask = os.umask(0)
    try:
        with open_listener(f"unix:{path}"):
            assert os.umask(0) == 0
            assert stat.S_IMODE(path.lstat().st_mode) == 0o700
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(mask)


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'gateway.sock'}"
    with open_listener(address), socket.socket(socket.AF_UNIX) as client:
        assert "another process listens" in refuse(address)
        client.connect(address.removeprefix("unix:"))
    with open_listener(address), socket.socket(socket.AF_UNIX) as client:
        client.connect(address.removeprefix("unix:"))


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "gateway.sock", tmp_path / "target"
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_text("kept")
    refuse(f"unix:{path}")
    assert os.path.lexists(path)
    assert target.exists() == (kind == "link")
