"""The Unix socket that a host adapter listens on, and who may connect to it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from ringfence.plugin.hosts.http2.errors import LISTEN_FAILED, Http2Error

_BACKLOG: Final = 512
_CREDENTIALS: Final = Struct("=iII")
"""`struct ucred` of Linux: process, user, group (unix(7))."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the file that it is bound to."""

    socket: socket.socket
    path: Path
    inode: int

    def remove(self) -> None:
        """Removes the file, unless it is a successor's by now."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()


def take_over(path: Path, mode: int) -> Listener:
    """Listens at `path` with the file mode `mode`, in the place of who does so already.

    Raises `grpc_server.listen_failed`.

    The new socket is bound beside the old one and renamed over it, so that at no moment nobody listens: whoever held
    `path` before goes on with the connections it has. Where somebody else may write, a socket could be put in the place
    of ours, so the folder must be this user's or root's, and writable for no one else.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        _check_place(path)
        beside.unlink(missing_ok=True)
        _bind(listener, beside, mode)
        beside.rename(path)
        return Listener(listener, path, path.lstat().st_ino)
    except (OSError, ValueError) as error:
        listener.close()
        raise Http2Error(
            LISTEN_FAILED,
            f"The adapter cannot listen on {path}: {error}.",
            field="socket",
            hint="Name a socket in a folder of its own that only the plugin's user may write to.",
        ) from error


def _bind(listener: socket.socket, path: Path, mode: int) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    path.chmod(mode)
    listener.listen(_BACKLOG)
    listener.setblocking(False)


def _check_place(path: Path) -> None:
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    found = folder.stat()
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"others may write to {folder}")
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ValueError(f"{path} is there and is no socket")


def peer_user(connection: socket.socket) -> int:
    """The user id of the process that connected, which the kernel vouches for (SO_PEERCRED, unix(7))."""
    size = _CREDENTIALS.size
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)
