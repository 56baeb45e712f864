"""The receiving half of a connection's streams: which are open, what came on them, and what they may still send. Pure.

Bodies are kept until their request is whole. The window of the connection bounds them all together and is given back as
they are handed over or dropped; the window of a stream is its message's limit and never renewed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from ringfence.plugin.hosts.http2.errors import H2ConnectionError, H2Error, H2StreamError
from ringfence.plugin.hosts.http2.fields import Fields
from ringfence.plugin.hosts.http2.limits import DEFAULT_WINDOW, Http2Limits
from ringfence.plugin.hosts.http2.outbound import Sending

_REMEMBERED: Final = 256
PREFIX_BYTES: Final = 5
"""What gRPC puts before a message, and so what a stream may carry beyond one."""


@dataclass(slots=True)
class Stream:
    """One request under way: when it began, and since when its answer waits for the peer, on the server's clock."""

    fields: Fields
    declared: int | None
    sending: Sending
    began: float
    body: bytearray = field(default_factory=bytearray, repr=False)
    ended: bool = False
    waits_since: float | None = None


class Streams:
    """The open streams by id, the newest id, and how the newest closed ones were closed."""

    def __init__(self, limits: Http2Limits) -> None:
        self._stream_bytes = limits.message_bytes + PREFIX_BYTES
        self._bodies_bytes = limits.bodies_bytes
        self._window = DEFAULT_WINDOW
        self._owed = limits.bodies_bytes - DEFAULT_WINDOW
        self.open: dict[int, Stream] = {}
        self.last = 0
        # Whether we closed it: then what the peer sent before it knew is no fault (RFC 9113 section 5.1, "closed").
        self._closed: OrderedDict[int, bool] = OrderedDict()

    def begin(self, stream: int, opened: Stream | None) -> None:
        """A request begins; None for one that is refused at once."""
        self.last = stream
        if opened is not None:
            self.open[stream] = opened

    def check_new(self, stream: int) -> None:
        """Checks the id of a HEADERS frame that no open stream has (RFC 9113 section 5.1.1)."""
        if stream % 2 == 0:
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A client opens streams with odd numbers only.")
        if stream in self._closed:
            raise H2ConnectionError(H2Error.STREAM_CLOSED, "HEADERS came on a stream that is closed.")
        if stream <= self.last:
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A new stream's number is not above the last one's.")

    def check_known(self, stream: int) -> None:
        """Refuses a frame on a stream that was never opened (RFC 9113 section 5.1, "idle")."""
        if stream > self.last or stream % 2 == 0:
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A frame came on a stream that is idle.")

    def ours_to_ignore(self, stream: int) -> bool:
        """Whether we closed this stream before the peer could know."""
        return self._closed.get(stream, False)

    def close(self, stream: int, *, by_us: bool) -> Stream | None:
        """The stream that is gone now, if it was open; what its body held is owed to the peer again."""
        gone = self.open.pop(stream, None)
        if gone is not None:
            self._owed += len(gone.body)
        self._closed[stream] = by_us
        if len(self._closed) > _REMEMBERED:
            self._closed.popitem(last=False)
        return gone

    def count(self, size: int) -> None:
        """Takes a DATA frame's payload, padding included, off the connection's window (RFC 9113 section 6.9.1)."""
        if size > self._window:
            raise H2ConnectionError(H2Error.FLOW_CONTROL_ERROR, "The connection's window is exceeded.")
        self._window -= size

    def owe(self, size: int) -> None:
        """What was counted and is not kept."""
        self._owed += size

    def keep(self, stream: Stream, content: bytes) -> None:
        """Adds to a body. Raises for the stream where its window or its declared length is exceeded."""
        size = len(stream.body) + len(content)
        if size > self._stream_bytes:
            raise H2StreamError(H2Error.FLOW_CONTROL_ERROR, "A stream's window is exceeded.")
        if stream.declared is not None and size > stream.declared:
            raise H2StreamError(H2Error.PROTOCOL_ERROR, "A body is longer than its content length.")
        stream.body += content

    def hand_over(self, stream: Stream) -> bytes:
        """The whole body. Raises for the stream where it is shorter than declared."""
        if stream.declared is not None and len(stream.body) != stream.declared:
            raise H2StreamError(H2Error.PROTOCOL_ERROR, "A body is shorter than its content length.")
        stream.ended = True
        body = bytes(stream.body)
        self._owed += len(body)
        stream.body.clear()
        return body

    def credit(self) -> int:
        """What to give back to the peer now, 0 for nothing: half a window at a time."""
        owed = self._owed
        if owed * 2 < self._bodies_bytes:
            return 0
        self._owed = 0
        self._window += owed
        return owed

    def expired(self, then: float) -> list[int]:
        """The streams whose request has been coming, or whose answer has been waiting, since `then` or longer."""
        late = []
        for number, stream in self.open.items():
            since = stream.waits_since if stream.ended else stream.began
            if since is not None and since <= then:
                late.append(number)
        return late
