"""The address that the built-in gateway listens on: a Unix socket or loopback, never the network, as it has no TLS."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final, Self

from ringfence.config import SocketPath

UNIX: Final = "unix:"
_LAST_PORT: Final = 65_535


class ListenAddress(str):
    """`unix:PATH`, its path resolved, or `IP:PORT`, an address of loopback."""

    __slots__ = ()

    @classmethod
    def from_text(cls, text: str, folder: Path) -> Self:
        """The address that `text` writes in a file in `folder`. Raises `ValueError` for an unusable one."""
        if text.startswith(UNIX):
            return cls(f"{UNIX}{SocketPath.from_text(text.removeprefix(UNIX), folder)}")
        loopback(text)
        return cls(text)


def loopback(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """The address and the port in `IP:PORT`. Raises `ValueError` unless the address is one of loopback."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise ValueError("Expected unix:PATH, or a loopback address with a port, such as 127.0.0.1:8440")
    ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if not ip.is_loopback:
        raise ValueError(f"{ip} is not a loopback address; put a gateway with TLS in front")
    return ip, int(port)
