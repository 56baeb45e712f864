"""The gateway's side of the desk: answers the operator's commands on a Unix socket that is the operator's alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from ringfence.errors import RingfenceError
from ringfence.plugin.builtin.address import UNIX
from ringfence.plugin.builtin.listen import open_listener
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions import desk
from ringfence.plugin.sessions.ending import SlicedStore
from ringfence.plugin.sessions.errors import DESK_REFUSED, DESK_UNAVAILABLE
from ringfence.plugin.sessions.port import Selection
from ringfence.plugin.sessions.revocations import Of

CONNECTIONS: Final = 8
QUIET_S: Final = 30.0
_CREDENTIALS: Final = struct.Struct("3i")
_SLICES: Final = 64


class AdminServer:
    """Lists and revokes sessions for processes of this user and of root; anybody else is refused unread.

    At most `CONNECTIONS` are served at a time, and one that is quiet for `QUIET_S` is closed. A list is made in slices
    between which requests are decided.
    """

    def __init__(
        self,
        store: SlicedStore,
        revoke: Callable[[Of, str], Awaitable[int]],
        *,
        principals: Callable[[str], tuple[str, ...]],
        now: Callable[[], int],
    ) -> None:
        """`principals` gives the keys that sessions know a principal by, for the name or the key that people write.

        It raises `session.principal_unknown`: nobody is told that a name was revoked which is nobody's.
        """
        self._store = store
        self._revoke = revoke
        self._principals = principals
        self._now = now
        self._conversations: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Serves at `path` (mode 0700) while the body runs. Raises `gateway.listen_failed`."""
        listener = open_listener(f"{UNIX}{path}")
        server = await asyncio.start_unix_server(self._connected, sock=listener)
        try:
            yield
        finally:
            server.close()
            for conversation in self._conversations:
                conversation.cancel()
            await asyncio.gather(*self._conversations, return_exceptions=True)
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(self._serve_one(reader, writer))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            refusal = self.unwelcome(writer.get_extra_info("socket"))
            if refusal is not None:
                writer.write(desk.encode(_refused(refusal)))
            else:
                await self._converse(reader, writer)
            await asyncio.wait_for(writer.drain(), QUIET_S)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def unwelcome(self, peer: socket.socket) -> GateError | None:
        """Why a peer is not served: the kernel says that it is somebody else, or too many are served already."""
        _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user not in (0, os.geteuid()):
            return GateError(
                DESK_REFUSED,
                "Only root and the gateway's own user may list and revoke sessions.",
                hint="Run the command as one of them.",
            )
        if len(self._conversations) > CONNECTIONS:
            return GateError(DESK_UNAVAILABLE, f"{CONNECTIONS} commands are being answered.", hint="Try again.")
        return None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = desk.Frames(desk.QUESTION_BYTES)
        while data := await asyncio.wait_for(reader.read(desk.QUESTION_BYTES), QUIET_S):
            try:
                for body in frames.feed(data):
                    writer.write(desk.encode(await self._answer(desk.decode_question(body))))
                    await asyncio.wait_for(writer.drain(), QUIET_S)
            except RingfenceError as error:
                writer.write(desk.encode(_refused(error)))
                return

    async def _answer(self, question: desk.Question) -> desk.Answer:
        if isinstance(question, desk.Revoke):
            return desk.Revoked(await self._revoked(question))
        selections = self._selections(question)
        start = question.start
        for _ in range(_SLICES):
            found, start = self._store.scan(selections, start, desk.PAGE)
            live = tuple(desk.view(session) for session in found if session.expires_at > self._now())
            if live or start < 0:
                return desk.Page(live, start)
            await asyncio.sleep(0)
        return desk.Page((), start)

    async def _revoked(self, question: desk.Revoke) -> int:
        if question.of != "principal":
            return await self._revoke(question.of, question.value)
        return sum([await self._revoke("principal", key) for key in self._principals(question.value)])

    def _selections(self, question: desk.List) -> tuple[Selection, ...]:
        asked = question.selection
        if not asked.principal:
            return (asked,)
        return tuple(replace(asked, principal=key) for key in self._principals(asked.principal))


def _refused(error: RingfenceError) -> desk.Refused:
    return desk.Refused(error.code.name, error.message, error.hint)
