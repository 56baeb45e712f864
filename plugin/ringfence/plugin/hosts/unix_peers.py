"""Unix sockets of the adapters: who may connect, and how many at a time.

The host's word is trusted: it names the client's address, target and certificate. So only the host may speak. The
kernel says which user a peer runs as (unix(7), SO_PEERCRED); a socket that anybody may write to is still safe.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ringfence.config import SocketPath
from ringfence.plugin.builtin.listen import open_listener
from ringfence.plugin.hosts.errors import LISTEN_REFUSED, HostError

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


class PeerSocket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an adapter listens. `peers` are the users that the host's workers run as, by name or number; none means
    the user that this process runs as. `group` and `mode` (decimal in TOML: 0o660) let those users reach the file."""

    path: SocketPath
    peers: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    group: str = ""
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o660
    connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 512

    def open(self) -> tuple[socket.socket, PeerGuard]:
        """The listening socket and the guard of its connections.

        Raises `gateway.listen_failed`, and `hosts.listen_refused` for a user or group that this system does not have.
        """
        try:
            users = frozenset(_uid(name) for name in self.peers) or frozenset({os.geteuid()})
        except KeyError:
            raise _unknown("peers", "user", ", ".join(self.peers)) from None
        try:
            group = grp.getgrnam(self.group).gr_gid if self.group else -1
        except KeyError:
            raise _unknown("group", "group", self.group) from None
        listener = open_listener(f"unix:{self.path}")
        # Made for its owner alone, and only then opened to the group.
        path = Path(self.path)
        try:
            if group != -1:
                os.chown(path, -1, group)
            path.chmod(self.mode)
        except OSError as error:
            listener.close()
            raise HostError(
                LISTEN_REFUSED,
                f"The socket's group and mode cannot be set: {error.strerror}.",
                field="group",
                hint="Make the gateway's user a member of that group.",
            ) from error
        listener.setblocking(False)
        return listener, PeerGuard(users, self.connections)


class PeerGuard:
    """Admits at most `connections` peers at a time, each of one of `users` (numeric user ids)."""

    def __init__(self, users: Iterable[int], connections: int) -> None:
        self._users = frozenset(users)
        self._free = connections

    def admit(self, transport: asyncio.Transport) -> bool:
        """Whether the connection may stay; it is broken off otherwise. Whoever stays must `leave`."""
        connection: socket.socket | None = transport.get_extra_info("socket")
        if self._free <= 0 or connection is None or peer_user(connection) not in self._users:
            transport.abort()
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """An admitted connection has ended."""
        self._free += 1


def peer_user(connection: socket.socket) -> int:
    """The user id of the process that connected; -1, nobody's, where the kernel does not say."""
    try:
        answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return -1
    uid: int = _CREDENTIALS.unpack(answer)[1]
    return uid


def _unknown(field: str, kind: str, names: str) -> HostError:
    return HostError(
        LISTEN_REFUSED,
        f"This system has no such {kind}: {names}.",
        field=field,
        hint=f"Name the {kind} that the host's workers run as, such as www-data or haproxy.",
    )


def _uid(name: str) -> int:
    return int(name) if name.isascii() and name.isdigit() else pwd.getpwnam(name).pw_uid
