"""What an operator sets for sessions. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec


class SessionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[sessions]` table: times in seconds; `snapshot_s` 0 keeps no snapshot, so a restart ends all sessions.

    `nonces_each` is how many messages of one principal are remembered at most.
    """

    capacity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    idle_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300
    stream_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    snapshot_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 60
    nonces_each: Annotated[int, msgspec.Meta(ge=1)] = 100_000
