"""The agent's socket: at most one agent owns it, and a socket that a killed agent left behind is cleared away."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.agent.api.errors import AGENT_RUNNING, AGENT_UNAVAILABLE, ChannelError


@contextmanager
def owned_socket(path: Path) -> Iterator[None]:
    """Owns the socket at `path` while inside; raises `agent.already_running` where another process does.

    The lock is a file beside the socket, held by the kernel for as long as the process lives, so it cannot be stale.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChannelError(
                AGENT_RUNNING,
                f"Another agent owns {path}.",
                field="socket",
                hint="Stop it first, or give this agent another socket.",
            ) from None
        _clear(path)
        try:
            yield
        finally:
            _clear(path)
    finally:
        os.close(lock)


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ChannelError(
            AGENT_UNAVAILABLE, f"{path} is there and is no socket.", field="socket", hint="Choose another path."
        )
    path.unlink()
