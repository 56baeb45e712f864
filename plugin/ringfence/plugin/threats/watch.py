"""The live feed: what happens at a gateway now, as typed events for whoever watches. Without I/O.

A line of the feed is one JSON object (RFC 8259) whose `event` says what it is. The feed never waits for a watcher: each
has a queue of bounded length, what does not fit is left out, and a `gap` says how many events were.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Final

import msgspec

from ringfence.plugin.threats.errors import WATCH_MALFORMED, WatchError
from ringfence.plugin.threats.events import ThreatEvent

MAX_LINE: Final = 16_384
_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class DecisionSeen(msgspec.Struct, frozen=True, tag="decision", tag_field="event", forbid_unknown_fields=True):
    """A decision: `at` in seconds since the epoch, `code` empty where it allowed, `risk` of 100."""

    at: _Number
    decision_id: _Text
    pipeline: _Text
    verdict: _Text
    code: _Text = ""
    principal: _Text = ""
    session: _Text = ""
    action: _Text = ""
    source: _Text = ""
    risk: _Number = 0
    duration_us: _Number = 0


class ThreatSeen(msgspec.Struct, frozen=True, tag="threat", tag_field="event", forbid_unknown_fields=True):
    """A threat, with the fields of `events.ThreatEvent`."""

    at: _Number
    pattern: _Text
    against: _Text
    subject: _Text
    count: _Number
    reaction: _Text
    until: _Number = 0

    @classmethod
    def of(cls, threat: ThreatEvent) -> ThreatSeen:
        """The event of a threat."""
        return cls(
            at=max(0, threat.now),
            pattern=threat.pattern.value,
            against=threat.against,
            subject=threat.subject,
            count=threat.count,
            reaction=threat.reaction.value,
            until=max(0, threat.until),
        )


class SessionEnded(msgspec.Struct, frozen=True, tag="session-ended", tag_field="event", forbid_unknown_fields=True):
    """A session ended, for the reason `code`."""

    at: _Number
    session: _Text
    principal: _Text
    code: _Text = ""


class Gap(msgspec.Struct, frozen=True, tag="gap", tag_field="event", forbid_unknown_fields=True):
    """So many events were left out here, because this watcher was slow."""

    missed: _Number


Event = DecisionSeen | ThreatSeen | SessionEnded | Gap
_DECODER = msgspec.json.Decoder(Event)
_ENCODE = msgspec.json.Encoder().encode


def decode_event(line: bytes) -> Event:
    """The event on a line of the feed, without its newline; `WatchError` threat.watch_malformed."""
    try:
        if len(line) > MAX_LINE:
            raise ValueError("too long")  # noqa: TRY301 - one error for every line that cannot be read
        event: Event = _DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WatchError(
            WATCH_MALFORMED,
            "What came over the feed is none of its events.",
            hint="Watch with the version of Ringfence that the gateway runs.",
        ) from None
    return event


class Watcher:
    """One watcher's queue of encoded lines, at most `capacity` of them."""

    __slots__ = ("_capacity", "_lines", "missed")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lines: deque[bytes] = deque()
        self.missed = 0
        """How many events were left out since the last gap was taken."""

    def put(self, line: bytes) -> None:
        """Queues a line, or counts it as missed where there is no room."""
        if len(self._lines) >= self._capacity:
            self.missed += 1
        else:
            self._lines.append(line)

    def take(self) -> bytes:
        """Everything that is queued, and behind it the gap, as bytes to send; empty where there is nothing."""
        taken = b"".join(self._lines)
        self._lines.clear()
        if self.missed:
            taken += _ENCODE(Gap(self.missed)) + b"\n"
            self.missed = 0
        return taken


class Broadcast:
    """Tells every watcher what happens: at most `watchers` of them, `capacity` lines for each."""

    def __init__(self, *, watchers: int = 16, capacity: int = 1024) -> None:
        self._most = watchers
        self._capacity = capacity
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, event: Event) -> bool:
        """Queues an event for everybody; whether anybody watches. Without watchers it costs nothing to speak of."""
        if not self._watchers:
            return False
        line = _ENCODE(event) + b"\n"
        if len(line) > MAX_LINE:
            return False
        for watcher in self._watchers:
            watcher.put(line)
        return True

    def join(self) -> Watcher | None:
        """A new watcher, None where as many as allowed are watching."""
        if len(self._watchers) >= self._most:
            return None
        watcher = Watcher(self._capacity)
        self._watchers.append(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Forgets a watcher."""
        self._watchers.remove(watcher)
