"""The gate as a front sees it: every question goes to the decision process, and no answer in time is a refusal."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final, TypeVar

import msgspec

from ringfence.plugin.api import JobAnswer
from ringfence.plugin.builtin.front.errors import FRONT_MALFORMED, FRONT_NO_ANSWER, FRONT_OVERFLOW, FrontError
from ringfence.plugin.builtin.front.frames import FRAME_LIMIT, Assembler, Bounds, Cancelled, Message, cancel, frames
from ringfence.plugin.builtin.front.messages import (
    MESSAGE_LIMIT,
    Done,
    Opening,
    Proved,
    Proving,
    Question,
    Refused,
    Reply,
    Screening,
    Submission,
    Worked,
    asked,
    decode_reply,
    encode,
    refusal,
)
from ringfence.plugin.errors import GATEWAY_BUSY, GateError
from ringfence.plugin.hosts.port import Inbound

READ_BYTES: Final = 1024 * 1024


class _Call:
    """One question under way; what it holds counts until the decision process has concluded it."""

    __slots__ = ("answer", "size")

    def __init__(self, size: int, answer: asyncio.Future[Message | FrontError]) -> None:
        self.size = size
        self.answer = answer


class RemoteGate:
    """Asks the decision process over one stream, within `bounds`; an answer may take `timeout_s`.

    `run` must run beside it. Its methods raise `RefusedError`, `GateError` gateway.busy where as much as allowed is
    asked already, and `FrontError` front.no_answer where none comes in time or the decision process is gone.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bounds: Bounds, *, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._bounds = bounds
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._asked = 0
        self._held = 0
        self._lost = False
        # Who decides is trusted; its answers are bounded all the same.
        replies = Bounds(bounds.calls, bounds.calls * MESSAGE_LIMIT, MESSAGE_LIMIT)
        self._assembler = Assembler(replies, self._calls.__contains__)

    async def run(self) -> None:
        """Takes answers until the decision process is gone; from then on everything is refused.

        Raises `FrontError` where what comes are no answers.
        """
        try:
            while data := await self._reader.read(READ_BYTES):
                for event in self._assembler.feed(data):
                    self._conclude(event)
        except ConnectionError:
            return
        finally:
            self._lost = True
            for call in self._calls.values():
                if not call.answer.done():
                    call.answer.set_result(_gone())

    async def open_session(self, message: bytes, *, source: str) -> bytes:
        """The handshake's reply to a hello."""
        reply, body = await self._ask(Opening(source), message)
        _expected(reply, Done)
        return body

    async def screen(self, inbound: Inbound) -> None:
        """Refuses a job that its header does not authenticate."""
        reply, _ = await self._ask(Screening(asked(inbound)))
        _expected(reply, Done)

    async def submit(self, inbound: Inbound) -> JobAnswer:
        """Forwards a job and waits for it."""
        reply, output = await self._ask(Submission(asked(inbound)), _body(inbound))
        return msgspec.structs.replace(_expected(reply, Worked).job, output=output)

    async def add_factors(self, inbound: Inbound) -> tuple[str, ...]:
        """The factors of a session, once the evidence in the body is added to it."""
        reply, _ = await self._ask(Proving(asked(inbound)), _body(inbound))
        return _expected(reply, Proved).factors

    async def _ask(self, question: Question, body: bytes = b"") -> tuple[Reply, bytes]:
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._call(encode(question), body)
        except TimeoutError:
            raise FrontError(
                FRONT_NO_ANSWER, f"There was no decision within {self._timeout_s:g} s.", hint="Try again later."
            ) from None
        reply = decode_reply(message.head)
        if isinstance(reply, Refused):
            raise refusal(reply)
        return reply, message.body

    async def _call(self, head: bytes, body: bytes) -> Message:
        call = _Call(len(head) + len(body), asyncio.get_running_loop().create_future())
        self._reserve(call, head)
        number = 0
        try:
            await self._room()
            # Numbered when its first frame goes, without a wait between, so that calls begin in their order.
            number = next(self._numbers)
            self._calls[number] = call
            for piece in frames(number, head, body):
                self._writer.write(piece)
                await self._room()
            answer = await call.answer
        finally:
            if not number:
                self._release(call)
            elif number in self._calls and not self._lost:
                call.answer.cancel()
                self._writer.write(cancel(number))
        if isinstance(answer, FrontError):
            raise answer
        return answer

    async def _room(self) -> None:
        """Waits until the decision process keeps up, so that no call has more than one frame waiting here."""
        if self._lost:
            raise _gone()
        try:
            await self._writer.drain()
        except ConnectionError:
            raise _gone() from None

    def _reserve(self, call: _Call, head: bytes) -> None:
        if len(head) > FRAME_LIMIT:
            raise FrontError(FRONT_OVERFLOW, f"A header of {len(head)} bytes is too long to be decided on.")
        if self._asked >= self._bounds.calls or self._held + call.size > self._bounds.total:
            raise GateError(
                GATEWAY_BUSY, "As many requests as allowed wait for a decision.", hint="Try again in a second."
            )
        self._asked += 1
        self._held += call.size

    def _release(self, call: _Call) -> None:
        self._asked -= 1
        self._held -= call.size

    def _conclude(self, event: Message | Cancelled) -> None:
        self._assembler.forget(event.call)
        call = self._calls.pop(event.call, None)
        # One that was cancelled here and answered there at once is concluded twice.
        if call is None:
            return
        self._release(call)
        if not call.answer.done():
            call.answer.set_result(event if isinstance(event, Message) else _gone())


Expected = TypeVar("Expected", Done, Proved, Worked)


def _expected(reply: Reply, kind: type[Expected]) -> Expected:
    if not isinstance(reply, kind):
        raise FrontError(FRONT_MALFORMED, "The decision process answered another question.")
    return reply


def _body(inbound: Inbound) -> bytes:
    return inbound.body if isinstance(inbound.body, bytes) else b""


def _gone() -> FrontError:
    return FrontError(FRONT_NO_ANSWER, "The decision process gives no answer.", hint="Try again later.")
