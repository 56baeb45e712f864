"""The agent's side of one SPOP connection. Pure: bytes in, events and bytes out.

Whatever the protocol does not allow ends the connection with a status, and HAProxy then leaves its variables unset,
which denies. Fragmented payloads are not offered and refused: a request whose header does not fit into a frame is one
whose header is too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.spoe.frames import (
    LENGTH_BYTES,
    SMALLEST_FRAME,
    VERSION,
    Frame,
    Message,
    Status,
    Type,
    decode_frame,
    decode_messages,
    encode_disconnect,
    encode_hello,
)

MAX_IN_FLIGHT: Final = 256


@dataclass(frozen=True, slots=True)
class Notified:
    """HAProxy asks: `stream` and `frame` name the question in its answer."""

    stream: int
    frame: int
    messages: tuple[Message, ...]


class _EndError(Exception):
    """The connection ends with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Connection:
    """One connection. `receive` gives the questions, `take` the bytes to send; once `ended`, the connection is closed.

    At most `max_frame_size` bytes are held of what came in, and at most `MAX_IN_FLIGHT` questions may be open.
    """

    def __init__(self, max_frame_size: int) -> None:
        self._limit = max_frame_size
        self._buffer = bytearray()
        self._out = bytearray()
        self._greeted = False
        self._open: set[tuple[int, int]] = set()
        self.ended = False

    def receive(self, data: bytes) -> list[Notified]:
        """The questions that `data` completes. Never raises."""
        asked: list[Notified] = []
        self._buffer += data
        try:
            while not self.ended and len(self._buffer) >= LENGTH_BYTES:
                length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
                # The length is checked before anything is waited for.
                if length > self._limit:
                    self._end(Status.TOO_BIG)
                    break
                end = LENGTH_BYTES + length
                if len(self._buffer) < end:
                    break
                frame = decode_frame(bytes(self._buffer[LENGTH_BYTES:end]))
                del self._buffer[:end]
                question = self._handle(frame)
                if question is not None:
                    asked.append(question)
        except _EndError as error:
            self._end(error.status)
        except RingfenceError:
            self._end(Status.INVALID)
        return asked

    def take(self) -> bytes:
        """What is to be sent now."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def answered(self, question: Notified) -> bool:
        """Whether the question is still open; it is not, afterwards."""
        key = (question.stream, question.frame)
        if key not in self._open:
            return False
        self._open.remove(key)
        return not self.ended

    def stop(self, status: Status) -> None:
        """Ends the connection from this side."""
        if not self.ended:
            self._end(status)

    def _handle(self, frame: Frame) -> Notified | None:
        if frame.type is Type.HAPROXY_DISCONNECT:
            self._end(Status.NORMAL)
            return None
        if frame.type is Type.UNSET or not frame.final or frame.aborted:
            raise _EndError(Status.FRAGMENTATION)
        if not self._greeted:
            if frame.type is not Type.HAPROXY_HELLO:
                raise _EndError(Status.INVALID)
            self._greet(frame)
            return None
        key = (frame.stream, frame.frame)
        if frame.type is not Type.NOTIFY or key in self._open or len(self._open) >= MAX_IN_FLIGHT:
            raise _EndError(Status.INVALID)
        messages = decode_messages(frame.payload())
        self._open.add(key)
        return Notified(frame.stream, frame.frame, tuple(messages))

    def _greet(self, frame: Frame) -> None:
        said = frame.payload().pairs()
        versions, size, capabilities = (
            said.get("supported-versions"),
            said.get("max-frame-size"),
            said.get("capabilities"),
        )
        if not isinstance(versions, str):
            raise _EndError(Status.VERSION_MISSING)
        if VERSION not in [one.strip() for one in versions.split(",")]:
            raise _EndError(Status.VERSION_UNSUPPORTED)
        if type(size) is not int:
            raise _EndError(Status.SIZE_MISSING)
        if not isinstance(capabilities, str):
            raise _EndError(Status.CAPABILITIES_MISSING)
        if size < SMALLEST_FRAME:
            raise _EndError(Status.SIZE_BAD)
        self._limit = min(self._limit, size)
        self._greeted = True
        self._out += encode_hello(self._limit)
        if said.get("healthcheck") is True:
            # A health check ends with the hello, section 3.2.10.
            self.ended = True

    def _end(self, status: Status) -> None:
        self._buffer.clear()
        self._out += encode_disconnect(status)
        self.ended = True
