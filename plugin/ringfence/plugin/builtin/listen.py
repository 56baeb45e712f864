"""Where the built-in gateway listens: a Unix socket or a loopback address, never the network, since it has no TLS."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from ringfence.plugin.builtin.address import UNIX, loopback
from ringfence.plugin.errors import LISTEN_FAILED, GateError

_BACKLOG: Final = 512


def open_listener(address: str) -> socket.socket:
    """A listening socket at `unix:PATH` or `IP:PORT`. Raises `gateway.listen_failed`."""
    try:
        return _unix(Path(address.removeprefix(UNIX))) if address.startswith(UNIX) else _loopback(address)
    except (OSError, ValueError, OverflowError) as error:
        raise _failed(address, str(error)) from error


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.exists():
            _clear_stale(path)
        before = os.umask(0o077)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ValueError(f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ValueError(f"another process listens on {path}")


def _loopback(address: str) -> socket.socket:
    ip, port = loopback(address)
    # asyncio sends without delay only where the socket names its protocol; else an answer waits 40 ms for an ACK.
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(ip), port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _failed(address: str, why: str) -> GateError:
    return GateError(
        LISTEN_FAILED,
        f"The gateway cannot listen on {address}: {why}.",
        field="listen",
        hint='Use "unix:/run/ringfence/gateway.sock" or a free loopback address such as "127.0.0.1:8440".',
    )
