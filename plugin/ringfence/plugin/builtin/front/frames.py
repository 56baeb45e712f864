"""The frames between a front and the decision process: many calls over one stream, none of which holds up another.

A call is one message each way: a head (msgpack, `messages`) and a body of raw bytes. A message is cut into frames of at
most `FRAME_LIMIT` bytes, which those of other calls may come between:

    length of the payload (u32)   call (u64)   part (u8)   payload        all big-endian

    WHOLE                  a head, and no body
    HEAD  BODY* LAST       a head, then a body, none of whose frames is empty
    CANCEL                 the call is over without an answer

The front numbers its calls upwards. The decision process concludes each call once, with its answer or with a CANCEL;
what the front cancels is concluded too. So both sides know the same calls to be under way. Pure.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ringfence.plugin.builtin.front.errors import FRONT_MALFORMED, FRONT_OVERFLOW, FrontError

FRAME_LIMIT: Final = 128 * 1024
"""Longest payload of a frame in bytes, and so of a head."""

_PREFIX: Final = struct.Struct(">IQB")


class Part(enum.IntEnum):
    """What of a call's message a frame carries."""

    WHOLE = 1
    HEAD = 2
    BODY = 3
    LAST = 4
    CANCEL = 5


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message of one call."""

    call: int
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The other side wants no answer any more, or gives none."""

    call: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the calls under way hold at most: `calls` of them, with `total` bytes together, `body` bytes in one body."""

    calls: int
    total: int
    body: int


def frames(call: int, head: bytes, body: bytes = b"") -> Iterator[bytes]:
    """The frames of one message. Raises `FrontError` front.overflow for a head that no frame can carry."""
    if len(head) > FRAME_LIMIT:
        raise FrontError(FRONT_OVERFLOW, f"A head of {len(head)} bytes fits into no frame.")
    yield _frame(call, Part.HEAD if body else Part.WHOLE, head)
    rest = memoryview(body)
    while rest:
        piece, rest = rest[:FRAME_LIMIT], rest[FRAME_LIMIT:]
        yield _frame(call, Part.BODY if rest else Part.LAST, piece)


def cancel(call: int) -> bytes:
    """The frame that ends a call without an answer."""
    return _frame(call, Part.CANCEL, b"")


def _frame(call: int, part: Part, payload: bytes | memoryview) -> bytes:
    return b"".join((_PREFIX.pack(len(payload), call, part), payload))


@dataclass(slots=True)
class _Partial:
    head: bytes
    body: bytearray | None
    """None once the message is whole."""
    held: int


class Assembler:
    """Puts the messages of one stream together, within `bounds`; `admit` says whether a call may begin here.

    A message counts against the bounds from its first byte until `forget`, so that the other side, whatever it sends,
    can make this one hold no more. Every error is final: the stream means nothing after it.
    """

    def __init__(self, bounds: Bounds, admit: Callable[[int], bool]) -> None:
        self._bounds = bounds
        self._admit = admit
        self._waiting = bytearray()
        self._calls: dict[int, _Partial] = {}
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of the messages that are not forgotten."""
        return self._held

    def feed(self, data: bytes) -> Iterator[Message | Cancelled]:
        """What `data` completes. Raises `FrontError` front.malformed and front.overflow."""
        self._waiting += data
        at = 0
        try:
            while len(self._waiting) - at >= _PREFIX.size:
                length, call, part = _PREFIX.unpack_from(self._waiting, at)
                if length > FRAME_LIMIT:
                    raise FrontError(FRONT_OVERFLOW, f"A frame announces {length} bytes.")
                end = at + _PREFIX.size + length
                if len(self._waiting) < end:
                    break
                payload = bytes(self._waiting[at + _PREFIX.size : end])
                at = end
                event = self._take(call, part, payload)
                if event is not None:
                    yield event
        finally:
            del self._waiting[:at]

    def forget(self, call: int) -> None:
        """The call is over; what it held is given back."""
        partial = self._calls.pop(call, None)
        if partial is not None:
            self._held -= partial.held

    def _take(self, call: int, part: int, payload: bytes) -> Message | Cancelled | None:
        if part == Part.CANCEL:
            if payload:
                raise _malformed("A cancelled call has a payload.")
            partial = self._calls.get(call)
            if partial is not None and partial.body is not None:
                self.forget(call)
            return Cancelled(call)
        if part in {Part.WHOLE, Part.HEAD}:
            return self._begin(call, payload, whole=part == Part.WHOLE)
        if part in {Part.BODY, Part.LAST}:
            return self._continue(call, payload, last=part == Part.LAST)
        raise _malformed(f"There is no part {part}.")

    def _begin(self, call: int, head: bytes, *, whole: bool) -> Message | None:
        if call in self._calls or not self._admit(call):
            raise _malformed(f"The call {call} cannot begin here.")
        if len(self._calls) >= self._bounds.calls:
            raise FrontError(FRONT_OVERFLOW, f"More than {self._bounds.calls} calls are under way.")
        partial = self._calls[call] = _Partial(head, None if whole else bytearray(), 0)
        self._hold(partial, len(head))
        return Message(call, head, b"") if whole else None

    def _continue(self, call: int, payload: bytes, *, last: bool) -> Message | None:
        partial = self._calls.get(call)
        if partial is None or partial.body is None or not payload:
            raise _malformed(f"A piece of a body belongs to no message of the call {call}, or is empty.")
        if len(partial.body) + len(payload) > self._bounds.body:
            raise FrontError(FRONT_OVERFLOW, f"A body has more than {self._bounds.body} bytes.")
        self._hold(partial, len(payload))
        partial.body += payload
        if not last:
            return None
        body, partial.body = bytes(partial.body), None
        return Message(call, partial.head, body)

    def _hold(self, partial: _Partial, size: int) -> None:
        if self._held + size > self._bounds.total:
            raise FrontError(FRONT_OVERFLOW, f"The calls under way hold more than {self._bounds.total} bytes.")
        partial.held += size
        self._held += size


def _malformed(why: str) -> FrontError:
    return FrontError(FRONT_MALFORMED, f"{why} The frames of a front and the decision process do not fit together.")
