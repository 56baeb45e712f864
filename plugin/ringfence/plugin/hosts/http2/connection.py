"""One connection of an HTTP/2 server without I/O: bytes in, events out (RFC 9113). Pure.

    connection = Connection(Http2Limits(), now)
    events = connection.receive(data, now)
    transport.write(connection.outgoing())

Only requests with a whole body come out; a response goes in at once. Nothing is pushed, prioritised or upgraded. A
violation never raises here: it is answered by RST_STREAM or GOAWAY, and after a GOAWAY with an error `closed` is true.
"""

from __future__ import annotations

from typing import Final

from ringfence.plugin.hosts.http2.errors import H2ConnectionError, H2Error, H2StreamError
from ringfence.plugin.hosts.http2.events import Cancelled, Event, Progress, Request
from ringfence.plugin.hosts.http2.fields import FieldDecoder, Fields, check_request, check_trailers
from ringfence.plugin.hosts.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    PREFACE,
    STREAM_MASK,
    Setting,
    Type,
    check_priority,
    frame,
    goaway_frame,
    header_fragment,
    need_no_stream,
    need_stream,
    read_settings,
    reset_frame,
    settings_frame,
    u32,
    unpadded,
    window_frame,
)
from ringfence.plugin.hosts.http2.inbound import PREFIX_BYTES, Stream, Streams
from ringfence.plugin.hosts.http2.limits import FRAME_BYTES, Allowance, Http2Limits
from ringfence.plugin.hosts.http2.outbound import Outbound, credit_stream, shift_window

_LAST_STREAM: Final = STREAM_MASK
_DRAINED: Final = b"drained\0"
"""What the PING carries whose answer says that the peer has read our first GOAWAY."""

_OF_STREAMS: Final = frozenset((Type.RST_STREAM, Type.WINDOW_UPDATE, Type.PRIORITY))
_RAPID_S: Final = 0.1
"""A stream that is reset sooner was opened for that. A proxy resets when its own client goes or its patience ends."""

_EARNED: Final = 4
"""How many control frames a whole request adds to the allowance: peers credit windows and measure delay for each."""

_CONTINUATIONS: Final = 4
"""How many CONTINUATION frames a field block may have: what is allowed to be sent fits one frame (CVE-2024-27316)."""


class Connection:
    """The state of one connection. `now` is in seconds on any one clock that does not go back."""

    def __init__(self, limits: Http2Limits, now: float) -> None:
        self._limits = limits
        self._fields = FieldDecoder(limits.header_bytes)
        self._streams = Streams(limits)
        self._out = Outbound()
        self._resets = Allowance(limits.resets_per_s, now)
        self._controls = Allowance(limits.control_frames_per_s, now)
        self._checked: tuple[Fields, int | None] = ((), None)
        self._rest = b""
        self._greeted = False
        self._settled = False
        self._draining = False
        self._last_said = _LAST_STREAM
        # A field block that CONTINUATION frames go on with: stream, flags, fragments, how many there were.
        self._block: tuple[int, int, bytes, int] | None = None
        self.closed = False
        self.reason = ""
        self._out.put(
            settings_frame(
                {
                    Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                    Setting.INITIAL_WINDOW_SIZE: limits.message_bytes + PREFIX_BYTES,
                    Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes,
                }
            )
        )
        self._give_credit()

    @property
    def idle(self) -> bool:
        """Whether no stream is open."""
        return not self._streams.open

    @property
    def greeted(self) -> bool:
        """Whether the peer has shown that it speaks HTTP/2, by its preface and first SETTINGS."""
        return self._settled

    def outgoing(self) -> bytes:
        """The bytes to send by now."""
        return self._out.take()

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes what has arrived and returns what it means."""
        events: list[Event] = []
        if self.closed:
            return events
        try:
            self._read(self._rest + data if self._rest else data, now, events)
        except H2ConnectionError as violation:
            self._fail(violation)
        return events

    def respond(self, stream: int, now: float, head: bytes, body: bytes = b"", trailers: bytes = b"") -> None:
        """Answers a request: encoded field blocks and a body, which is empty where there are no trailers.

        A request whose end has not come is answered and reset with NO_ERROR (RFC 9113 section 8.1). Nothing happens
        where the stream is gone.
        """
        opened = self._streams.open.get(stream)
        if opened is None or self.closed:
            return
        if self._out.respond(stream, opened.sending, head, body, trailers):
            self._answered(stream, opened)
        else:
            opened.waits_since = now

    def drain(self) -> None:
        """Begins a graceful end (RFC 9113 section 6.8): the peer opens no new streams, and the open ones are answered.

        The first GOAWAY names no stream, so that requests on their way are served; the second, once the peer has
        answered a PING behind it, names the last. `finished` says when all is done.
        """
        if not self._draining and not self.closed:
            self._draining = True
            self._out.put(goaway_frame(_LAST_STREAM, H2Error.NO_ERROR) + frame(Type.PING, 0, 0, _DRAINED))

    @property
    def finished(self) -> bool:
        """Whether a draining connection has nothing left to answer."""
        return self._draining and self._last_said != _LAST_STREAM and self.idle

    def expire(self, now: float) -> list[Event]:
        """Ends requests that have not arrived in time and answers that nobody takes: slowness holds no memory."""
        late = self._streams.expired(now - self._limits.request_s)
        for stream in late:
            self._reset(stream, H2Error.CANCEL)
        self._give_credit()
        return [Cancelled(stream) for stream in late]

    def _read(self, data: bytes, now: float, events: list[Event]) -> None:
        offset, size = 0, len(data)
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "The peer does not speak HTTP/2.")
            if size < len(PREFACE):
                self._rest = data
                return
            self._greeted, offset = True, len(PREFACE)
        while size - offset >= HEADER_BYTES:
            upper, lower, kind, flags, stream = HEADER.unpack_from(data, offset)
            length = upper << 8 | lower
            if length > FRAME_BYTES:
                raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, f"A frame has {length} bytes.")
            end = offset + HEADER_BYTES + length
            if end > size:
                break
            self._frame(kind, flags, stream & STREAM_MASK, data[offset + HEADER_BYTES : end], now, events)
            offset = end
        self._rest = data[offset:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, now: float, events: list[Event]) -> None:
        if self._block is not None and (kind != Type.CONTINUATION or stream != self._block[0]):
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A field block is not continued.")
        if not self._settled and (kind != Type.SETTINGS or flags & ACK):
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
        if stream > self._last_said and kind in _OF_STREAMS:
            return  # it was on its way before our GOAWAY arrived, which told the peer to send it elsewhere
        try:
            if kind == Type.HEADERS:
                self._on_headers(flags, stream, payload, now, events)
            elif kind == Type.DATA:
                self._on_data(flags, stream, payload, now, events)
            elif kind == Type.CONTINUATION:
                self._on_continuation(flags, stream, payload, now, events)
            else:
                self._on_control(kind, flags, stream, payload, now, events)
        except H2StreamError as violation:
            self._spend(self._resets, now)
            if stream in self._streams.open:
                events.append(Cancelled(stream))
            self._reset(stream, violation.number)

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, now: float, events: list[Event]) -> None:
        self._spend(self._controls, now)
        match kind:
            case Type.WINDOW_UPDATE:
                self._on_window_update(stream, u32(payload))
            case Type.RST_STREAM:
                u32(payload)
                need_stream(stream)
                self._streams.check_known(stream)
                gone = self._streams.close(stream, by_us=False)
                if gone is not None:
                    events.append(Cancelled(stream))
                    if now - gone.began < _RAPID_S:
                        self._spend(self._resets, now)
                    self._give_credit()
            case Type.SETTINGS:
                need_no_stream(stream)
                self._on_settings(flags, payload)
            case Type.PING:
                need_no_stream(stream)
                self._on_ping(flags, payload)
            case Type.GOAWAY:
                need_no_stream(stream)
                if len(payload) < 8:
                    raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, "A GOAWAY is too short.")
                self.drain()
            case Type.PRIORITY:
                need_stream(stream)
                check_priority(stream, payload)
            case Type.PUSH_PROMISE:
                raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A client pushes nothing.")

    def _on_headers(self, flags: int, stream: int, payload: bytes, now: float, events: list[Event]) -> None:
        need_stream(stream)
        fragment = header_fragment(flags, stream, payload)
        if flags & END_HEADERS:
            self._on_block(flags, stream, fragment, now, events)
        else:
            self._block = (stream, flags, fragment, 0)

    def _on_continuation(self, flags: int, stream: int, payload: bytes, now: float, events: list[Event]) -> None:
        if self._block is None:
            raise H2ConnectionError(H2Error.PROTOCOL_ERROR, "A CONTINUATION continues nothing.")
        _, opened, fragment, count = self._block
        fragment += payload
        if count >= _CONTINUATIONS or len(fragment) > FRAME_BYTES:
            raise H2ConnectionError(H2Error.ENHANCE_YOUR_CALM, "A field block is longer than allowed.")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(opened, stream, fragment, now, events)
        else:
            self._block = (stream, opened, fragment, count + 1)

    def _on_block(self, flags: int, stream: int, block: bytes, now: float, events: list[Event]) -> None:
        streams = self._streams
        opened = streams.open.get(stream)
        ignored = opened is None and (streams.ours_to_ignore(stream) or stream > self._last_said)
        if opened is None and not ignored:
            streams.check_new(stream)
        # Decoded whatever becomes of it: the table belongs to the connection (RFC 9113 section 4.3).
        fields = self._fields.decode(block)
        if opened is not None:
            if opened.ended:
                raise H2StreamError(H2Error.STREAM_CLOSED, "HEADERS came after the end of a request.")
            if not flags & END_STREAM:
                raise H2StreamError(H2Error.PROTOCOL_ERROR, "Trailers do not end their request.")
            check_trailers(fields)
            self._arrived(stream, opened, events)
            self._give_credit()
        elif not ignored:
            streams.begin(stream, None)
            self._on_request(flags, stream, fields, now, events)

    def _on_request(self, flags: int, stream: int, fields: Fields, now: float, events: list[Event]) -> None:
        known, declared = self._checked
        if fields is not known:
            declared = check_request(fields)
            self._checked = (fields, declared)
        if len(self._streams.open) >= self._limits.streams:
            raise H2StreamError(H2Error.REFUSED_STREAM, "More streams are open than allowed.")
        opened = Stream(fields, declared, self._out.stream(), now)
        self._streams.begin(stream, opened)
        if flags & END_STREAM:
            self._arrived(stream, opened, events)

    def _on_data(self, flags: int, stream: int, payload: bytes, now: float, events: list[Event]) -> None:
        need_stream(stream)
        streams = self._streams
        streams.count(len(payload))
        if stream > self._last_said:
            streams.owe(len(payload))
            return
        streams.check_known(stream)
        opened = streams.open.get(stream)
        if opened is None or opened.ended:
            streams.owe(len(payload))
            self._give_credit()
            if streams.ours_to_ignore(stream):
                self._spend(self._controls, now)
                return
            raise H2StreamError(H2Error.STREAM_CLOSED, "DATA came on a stream that is closed.")
        try:
            content = unpadded(flags, payload)
            streams.keep(opened, content)
        except H2StreamError:
            streams.owe(len(payload))
            raise
        streams.owe(len(payload) - len(content))
        if flags & END_STREAM:
            self._arrived(stream, opened, events)
        else:
            if not content:
                self._spend(self._controls, now)
            events.append(Progress(stream, bytes(opened.body[:PREFIX_BYTES])))
        self._give_credit()

    def _on_window_update(self, stream: int, value: int) -> None:
        increment = value & STREAM_MASK
        if stream == 0:
            self._out.credit(increment)
            self._resume()
            return
        self._streams.check_known(stream)
        opened = self._streams.open.get(stream)
        if opened is not None:
            credit_stream(opened.sending, increment)
            self._resume()

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS has a payload.")
            return
        change = self._out.apply(read_settings(payload))
        for opened in self._streams.open.values():
            shift_window(opened.sending, change)
        self._settled = True
        self._out.put(frame(Type.SETTINGS, ACK, 0))
        self._resume()

    def _on_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise H2ConnectionError(H2Error.FRAME_SIZE_ERROR, f"A PING has {len(payload)} bytes where 8 are due.")
        if not flags & ACK:
            self._out.put(frame(Type.PING, ACK, 0, payload))
        elif payload == _DRAINED and self._draining:
            self._last_said = self._streams.last
            self._out.put(goaway_frame(self._last_said, H2Error.NO_ERROR))

    def _arrived(self, stream: int, opened: Stream, events: list[Event]) -> None:
        events.append(Request(stream, opened.fields, self._streams.hand_over(opened)))
        self._controls.earn(_EARNED)

    def _resume(self) -> None:
        for stream, opened in list(self._streams.open.items()):
            if opened.sending.waits and self._out.resume(stream, opened.sending):
                self._answered(stream, opened)

    def _answered(self, stream: int, opened: Stream) -> None:
        self._streams.close(stream, by_us=not opened.ended)
        if not opened.ended:
            self._out.put(reset_frame(stream, H2Error.NO_ERROR))
            self._give_credit()

    def _reset(self, stream: int, number: H2Error) -> None:
        self._streams.close(stream, by_us=True)
        self._out.put(reset_frame(stream, number))
        self._give_credit()

    def _give_credit(self) -> None:
        credit = self._streams.credit()
        if credit:
            self._out.put(window_frame(0, credit))

    def _spend(self, allowance: Allowance, now: float) -> None:
        if not allowance.take(now):
            raise H2ConnectionError(H2Error.ENHANCE_YOUR_CALM, "The peer resets streams or sends frames too often.")

    def _fail(self, violation: H2ConnectionError) -> None:
        self.closed, self.reason = True, violation.message
        self._rest, self._block = b"", None
        self._out.put(goaway_frame(self._streams.last, violation.number))
