"""What one peer may make the server hold or do."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

DEFAULT_WINDOW: Final = 65_535
"""A flow-control window before any setting arrives, in bytes (RFC 9113 section 6.9.2)."""

MAX_WINDOW: Final = 2**31 - 1

FRAME_BYTES: Final = 16_384
"""The longest payload of a frame that is accepted: the least that a peer must accept too (RFC 9113 section 4.2)."""


class Http2Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of the HTTP/2 server. Sizes in bytes, times in seconds.

    Where a peer sends more resets or control frames than its allowance, the connection ends with ENHANCE_YOUR_CALM:
    rapid resets (CVE-2023-44487) and floods of PING, SETTINGS, PRIORITY and empty frames cost their sender the most.
    """

    connections: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    concurrent_calls: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2048
    streams: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 1024
    message_bytes: Annotated[int, msgspec.Meta(ge=DEFAULT_WINDOW, le=64 * 1024 * 1024)] = 256 * 1024
    bodies_bytes: Annotated[int, msgspec.Meta(ge=2 * DEFAULT_WINDOW, le=1024 * 1024 * 1024)] = 4 * 1024 * 1024
    header_bytes: Annotated[int, msgspec.Meta(ge=1024, le=FRAME_BYTES)] = 8192
    request_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    resets_per_s: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    control_frames_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000

    def __post_init__(self) -> None:
        # The window is given back half at a time: a message must fit the other half, or it would never arrive.
        if self.bodies_bytes < 2 * self.message_bytes:
            raise ValueError(
                f"`bodies_bytes` ({self.bodies_bytes}) must be at least twice `message_bytes` ({self.message_bytes})"
            )


class Allowance:
    """A bucket of `per_s` units that fills again at `per_s` a second. Pure; time is an argument, in seconds."""

    __slots__ = ("_left", "_per_s", "_then")

    def __init__(self, per_s: int, now: float) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._then = now

    def take(self, now: float) -> bool:
        """Takes one unit; false where there is none. A clock that goes back fills nothing."""
        if now > self._then:
            self._left = min(self._per_s, self._left + (now - self._then) * self._per_s)
            self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self, units: int) -> None:
        """Puts units back, never more than the bucket holds."""
        self._left = min(self._per_s, self._left + units)
