"""What comes out of a connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringfence.plugin.hosts.http2.fields import Fields


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `fields` are of its HEADERS frame; the same tuple comes again where a peer repeats them."""

    stream: int
    fields: Fields
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """The beginning of a body that is not whole yet, so that a call can be refused before all of it has come."""

    stream: int
    start: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer does not want an answer on this stream any more, or broke the protocol on it."""

    stream: int


Event = Request | Progress | Cancelled
