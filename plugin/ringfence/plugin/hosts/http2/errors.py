"""Error codes of the HTTP/2 server, and the error numbers that it sends (RFC 9113 section 7)."""

from __future__ import annotations

import enum
from typing import Final

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError


class H2Error(enum.IntEnum):
    """What a RST_STREAM or GOAWAY frame gives as its reason."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


CONNECTION_VIOLATED: Final = Code("grpc_server.connection_violated", Kind.INVALID)
STREAM_VIOLATED: Final = Code("grpc_server.stream_violated", Kind.INVALID)
CALL_REFUSED: Final = Code("grpc_server.call_refused", Kind.INVALID)
LISTEN_FAILED: Final = Code("grpc_server.listen_failed", Kind.UNAVAILABLE)


class Http2Error(GateError):
    """A peer broke the protocol, or asked for what is not served."""


class H2ConnectionError(Http2Error):
    """The connection cannot go on: GOAWAY with `number`, then it is closed (RFC 9113 section 5.4.1)."""

    def __init__(self, number: H2Error, message: str) -> None:
        super().__init__(CONNECTION_VIOLATED, message)
        self.number = number


class H2StreamError(Http2Error):
    """One stream cannot go on: RST_STREAM with `number` (RFC 9113 section 5.4.2)."""

    def __init__(self, number: H2Error, message: str) -> None:
        super().__init__(STREAM_VIOLATED, message)
        self.number = number


class CallRefusedError(Http2Error):
    """A call ends with the gRPC status `status` and no message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(CALL_REFUSED, message)
        self.status = status
