"""The live feed's socket: a Unix socket on which the gateway's owner, and root, may watch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ringfence.plugin.threats.errors import WATCH_UNAVAILABLE, WatchError
from ringfence.plugin.threats.watch import Broadcast, Watcher

SLOW_S: Final = 5.0
POLL_S: Final = 0.2
_CREDENTIALS = struct.Struct("3i")


@asynccontextmanager
async def serve_feed(broadcast: Broadcast, path: Path, *, slow_s: float = SLOW_S) -> AsyncIterator[None]:
    """Serves the feed at `path` (mode 0600) while inside; `WatchError` threat.watch_unavailable where it cannot.

    Who connects must be the process's own user or root, which the kernel says (SO_PEERCRED, unix(7)); a watcher that
    takes nothing for `slow_s` seconds is dropped. What a watcher sends is never read.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            await _serve(broadcast, reader, writer, slow_s)
        writer.transport.abort()

    _clear(path)
    try:
        listening = _listen(path)
    except OSError as error:
        raise WatchError(
            WATCH_UNAVAILABLE,
            f"The live feed cannot listen at {path}: {error.strerror}.",
            field=str(path),
            hint="Check the folder and its mode, and that the path is short enough for a socket.",
        ) from error
    server = await asyncio.start_unix_server(serve, sock=listening)
    try:
        yield
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _clear(path)


def may_watch(peer_uid: int) -> bool:
    """Whether a peer with this user id may watch: it is this process's own, or root."""
    return peer_uid in (0, os.geteuid())


async def _serve(
    broadcast: Broadcast, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow_s: float
) -> None:
    connection = writer.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    watcher = broadcast.join() if may_watch(uid) else None
    if watcher is None:
        return
    try:
        await _feed(watcher, reader, writer, slow_s)
    finally:
        broadcast.leave(watcher)


async def _feed(watcher: Watcher, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow_s: float) -> None:
    # Little is buffered here, so that a slow watcher's events stay in its queue, where they are counted.
    writer.transport.set_write_buffer_limits(high=0)
    while not (reader.at_eof() or writer.transport.is_closing()):
        lines = watcher.take()
        if lines:
            writer.write(lines)
            async with asyncio.timeout(slow_s):
                await writer.drain()
        else:
            await asyncio.sleep(POLL_S)


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect between bind and chmod: the name is made under a mask that leaves it to its owner.
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


def _clear(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
