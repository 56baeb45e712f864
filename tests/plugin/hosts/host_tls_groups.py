"""Which key exchange group a TLS 1.3 server would choose, asked with a ClientHello of our own.

A hello that offers groups and no key share makes the server name its choice in the clear, in a HelloRetryRequest (RFC
8446 section 4.1.4), or end the handshake where it knows none of them. No TLS library stands between.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from struct import pack, unpack_from

GROUPS: Mapping[str, int] = {
    "X25519MLKEM768": 0x11EC,
    "SecP256r1MLKEM768": 0x11EB,
    "SecP384r1MLKEM1024": 0x11ED,
    "MLKEM768": 0x0201,
    "MLKEM1024": 0x0202,
    "X25519": 0x001D,
    "X448": 0x001E,
    "secp256r1": 0x0017,
    "secp384r1": 0x0018,
    "secp521r1": 0x0019,
    "ffdhe2048": 0x0100,
}
"""IANA, TLS Supported Groups."""

_RETRY = hashlib.sha256(b"HelloRetryRequest").digest()
_KEY_SHARE = 51


def chosen(port: int, groups: Sequence[str], name: str = "localhost") -> str:
    """The group that the server on 127.0.0.1:`port` chooses of `groups`; empty where it takes none."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(_hello([GROUPS[group] for group in groups], name))
        header = _exactly(connection, 5)
        record = _exactly(connection, int.from_bytes(header[3:], "big"))
    if header[0] != 22 or record[0] != 2 or record[6:38] != _RETRY:
        return ""
    offset = 39 + record[38] + 3
    offset += 2
    while offset < len(record):
        kind, size = unpack_from(">HH", record, offset)
        if kind == _KEY_SHARE:
            (group,) = unpack_from(">H", record, offset + 4)
            return next(known for known, number in GROUPS.items() if number == group)
        offset += 4 + size
    raise AssertionError("a HelloRetryRequest without a group")


def _hello(groups: Sequence[int], name: str) -> bytes:
    host = name.encode()
    extensions = b"".join(
        pack(">HH", kind, len(data)) + data
        for kind, data in (
            (0, pack(">HBH", len(host) + 3, 0, len(host)) + host),
            (10, _vector(b"".join(pack(">H", group) for group in groups))),
            (13, _vector(b"".join(pack(">H", scheme) for scheme in (0x0403, 0x0804, 0x0503)))),
            (43, b"\x02\x03\x04"),
            (_KEY_SHARE, _vector(b"")),
        )
    )
    body = b"\x03\x03" + os.urandom(32) + b"\x20" + os.urandom(32)
    body += _vector(pack(">HHH", 0x1301, 0x1302, 0x1303)) + b"\x01\x00" + _vector(extensions)
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + _vector(message)


def _vector(data: bytes) -> bytes:
    return pack(">H", len(data)) + data


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "the server closed the connection"
        data += more
    return data
