"""The sending half of a connection: what goes out, within the windows that the peer gives. Pure.

A response is one HEADERS frame, DATA frames and one HEADERS frame of trailers, as gRPC needs it. What does not fit a
window waits; it is bounded by the number of streams and the size of a response.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ringfence.plugin.hosts.http2.errors import H2ConnectionError, H2Error, H2StreamError
from ringfence.plugin.hosts.http2.fields import TABLE_BYTES
from ringfence.plugin.hosts.http2.frames import END_HEADERS, END_STREAM, Setting, Type, frame
from ringfence.plugin.hosts.http2.limits import DEFAULT_WINDOW, FRAME_BYTES, MAX_WINDOW

_MAX_FRAME_BYTES: Final = 2**24 - 1
_TABLE_OF_NOTHING: Final = b"\x20"
"""A dynamic table size update to 0 (RFC 7541 section 6.3)."""


@dataclass(slots=True)
class Sending:
    """What one stream may still send, and what of its response waits."""

    window: int
    unsent: bytes = field(default=b"", repr=False)
    trailers: bytes = b""

    @property
    def waits(self) -> bool:
        return bool(self.unsent)


class Outbound:
    """The bytes to send, the peer's settings and its window for the connection."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._frame_bytes = FRAME_BYTES
        self._shrink_table = False

    def put(self, data: bytes) -> None:
        self._chunks.append(data)

    def take(self) -> bytes:
        """All bytes to send by now; they are forgotten here."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data

    def stream(self) -> Sending:
        """What a new stream may send."""
        return Sending(self._initial_window)

    def respond(self, stream: int, sending: Sending, head: bytes, body: bytes, trailers: bytes) -> bool:
        """Sends a response as far as the windows go; true once all of it is out. Field blocks are encoded already."""
        if self._shrink_table:
            # A decoder that made its table smaller waits to be told that the encoder did too (RFC 7541 section 4.2).
            head, self._shrink_table = _TABLE_OF_NOTHING + head, False
        size = len(body)
        opened = frame(Type.HEADERS, END_HEADERS if size or trailers else END_HEADERS | END_STREAM, stream, head)
        if not size or (size <= sending.window and size <= self._window and size <= self._frame_bytes):
            self._window -= size
            if trailers:
                opened += frame(Type.DATA, 0, stream, body)
                opened += frame(Type.HEADERS, END_HEADERS | END_STREAM, stream, trailers)
            self._chunks.append(opened)
            return True
        self._chunks.append(opened)
        sending.unsent, sending.trailers = body, trailers
        return self.resume(stream, sending)

    def resume(self, stream: int, sending: Sending) -> bool:
        """Sends more of a response that waits; true once all of it is out."""
        while sending.unsent:
            size = min(len(sending.unsent), sending.window, self._window, self._frame_bytes)
            if size <= 0:
                return False
            self._window -= size
            sending.window -= size
            self._chunks.append(frame(Type.DATA, 0, stream, sending.unsent[:size]))
            sending.unsent = sending.unsent[size:]
        self._chunks.append(frame(Type.HEADERS, END_HEADERS | END_STREAM, stream, sending.trailers))
        return True

    def credit(self, increment: int) -> None:
        """The peer's WINDOW_UPDATE for the connection. Raises PROTOCOL_ERROR or FLOW_CONTROL_ERROR."""
        if increment == 0:
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A WINDOW_UPDATE for the connection adds nothing.")
        if self._window + increment > MAX_WINDOW:
            raise H2ConnectionError(H2Error.FLOW_CONTROL_ERROR, "The connection's window is too large.")
        self._window += increment

    def apply(self, settings: list[tuple[int, int]]) -> int:
        """Takes the peer's settings (RFC 9113 section 6.5.2); returns by how much every stream's window changes.

        Raises PROTOCOL_ERROR or FLOW_CONTROL_ERROR. A setting that is unknown is ignored (section 6.5.2).
        """
        before = self._initial_window
        for name, value in settings:
            match name:
                case Setting.HEADER_TABLE_SIZE:
                    self._shrink_table = self._shrink_table or value < TABLE_BYTES
                case Setting.ENABLE_PUSH if value > 1:
                    raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
                case Setting.INITIAL_WINDOW_SIZE:
                    if value > MAX_WINDOW:
                        raise H2ConnectionError(H2Error.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large.")
                    self._initial_window = value
                case Setting.MAX_FRAME_SIZE:
                    if not FRAME_BYTES <= value <= _MAX_FRAME_BYTES:
                        raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range.")
                    self._frame_bytes = value
        return self._initial_window - before


def credit_stream(sending: Sending, increment: int) -> None:
    """The peer's WINDOW_UPDATE for a stream. Raises PROTOCOL_ERROR or FLOW_CONTROL_ERROR for the stream."""
    if increment == 0:
        raise H2StreamError(H2Error.PROTOCOL_ERROR, "A WINDOW_UPDATE adds nothing.")
    if sending.window + increment > MAX_WINDOW:
        raise H2StreamError(H2Error.FLOW_CONTROL_ERROR, "A stream's window is too large.")
    sending.window += increment


def shift_window(sending: Sending, change: int) -> None:
    """Moves a stream's window as INITIAL_WINDOW_SIZE did; it may become negative (RFC 9113 section 6.9.2)."""
    if sending.window + change > MAX_WINDOW:
        raise H2ConnectionError(H2Error.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a stream's window too large.")
    sending.window += change
