"""The decision process's side of one front: takes its questions, asks the gate, and answers.

A front is a process that strangers talk to. So whatever it sends is bounded and parsed as strictly as a stranger's own
bytes; all it can do wrong is to claim another source for a request, and to lose its own answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from ringfence.errors import INTERNAL, RingfenceError
from ringfence.plugin.builtin.capacity import Slots
from ringfence.plugin.builtin.front.errors import FRONT_OVERFLOW, FrontError
from ringfence.plugin.builtin.front.frames import FRAME_LIMIT, Assembler, Bounds, Cancelled, Message, cancel, frames
from ringfence.plugin.builtin.front.messages import (
    Done,
    Opening,
    Proved,
    Proving,
    Question,
    Refused,
    Reply,
    Screening,
    Worked,
    decode_question,
    encode,
    inbound,
    refused,
)
from ringfence.plugin.builtin.front.remote import READ_BYTES
from ringfence.plugin.builtin.port import GateDoor
from ringfence.plugin.hosts.port import Unseen
from ringfence.plugin.settling import RefusedError

SEND_S: Final = 30.0
"""How long a front may take to receive an answer; one that does not is given up."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all fronts have together: the gate, and how many jobs and openings may be under way."""

    gate: GateDoor
    jobs: Slots
    openings: Slots
    tell: Callable[[str], None]


class Service:
    """Serves one front within `bounds`."""

    def __init__(
        self,
        shared: Shared,
        bounds: Bounds,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        send_s: float = SEND_S,
    ) -> None:
        self._shared = shared
        self._send_s = send_s
        self._reader = reader
        self._writer = writer
        self._assembler = Assembler(bounds, self._admits)
        self._newest = 0
        self._working: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serves until the front is gone; its work is then cancelled, and has ended when this returns.

        Raises `FrontError` front.malformed and front.overflow for a front that breaks the protocol.
        """
        try:
            while data := await self._reader.read(READ_BYTES):
                for event in self._assembler.feed(data):
                    self._hear(event)
                # A front that takes no answers is not heard either.
                await self._room()
        except (ConnectionError, TimeoutError):
            return
        finally:
            working = list(self._working.values())
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def _admits(self, call: int) -> bool:
        if call <= self._newest:
            return False
        self._newest = call
        return True

    def _hear(self, event: Message | Cancelled) -> None:
        working = self._working.get(event.call)
        if isinstance(event, Message):
            task = self._working[event.call] = asyncio.create_task(self._answer(event))
            task.add_done_callback(partial(self._ended, event.call))
        elif working is not None:
            working.cancel()
        else:
            self._writer.write(cancel(event.call))

    def _ended(self, call: int, task: asyncio.Task[None]) -> None:
        del self._working[call]
        self._assembler.forget(call)
        if task.cancelled():
            if not self._writer.is_closing():
                self._writer.write(cancel(call))
        elif task.exception() is not None:
            # It takes no answers, or is gone already.
            self._writer.transport.abort()

    async def _answer(self, message: Message) -> None:
        reply, body = await self._decide(message)
        # Before the answer goes: the front may ask anew as soon as it has it.
        self._assembler.forget(message.call)
        head = encode(reply)
        if len(head) > FRAME_LIMIT:
            head, body = encode(refused(FrontError(FRONT_OVERFLOW, "The answer is too long for a front."))), b""
        for piece in frames(message.call, head, body):
            self._writer.write(piece)
            await self._room()

    async def _room(self) -> None:
        async with asyncio.timeout(self._send_s):
            await self._writer.drain()

    async def _decide(self, message: Message) -> tuple[Reply, bytes]:
        try:
            return await self._ask(decode_question(message.head), message.body)
        except (RefusedError, RingfenceError) as error:
            return refused(error), b""
        except Exception as error:  # noqa: BLE001 - whatever is wrong in a decision denies, and ends nothing else
            self._shared.tell(f"a decision failed unexpectedly with {type(error).__name__}: {error}")
            return _bug(), b""

    async def _ask(self, question: Question, body: bytes) -> tuple[Reply, bytes]:
        gate = self._shared.gate
        if isinstance(question, Opening):
            with self._shared.openings.held():
                return Done(), await gate.open_session(body, source=question.source)
        if isinstance(question, Screening):
            await gate.screen(inbound(question.asked, Unseen.HIDDEN))
            return Done(), b""
        whole = inbound(question.asked, body)
        if isinstance(question, Proving):
            with self._shared.openings.held():
                return Proved(await gate.add_factors(whole)), b""
        with self._shared.jobs.held():
            job = await gate.submit(whole)
        return Worked(msgspec.structs.replace(job, output=b"")), job.output


def _bug() -> Refused:
    return Refused(
        code=INTERNAL.name, kind=INTERNAL.kind.name, message="The decision failed unexpectedly, and so denies."
    )
