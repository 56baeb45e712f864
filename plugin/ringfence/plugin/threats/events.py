"""Threats as values: which pattern was seen, whom it counts against, and what was done."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Against = Literal["source", "principal"]


class Pattern(enum.Enum):
    """What a threat looks like."""

    REFUSALS = "refusal-burst"
    CREDENTIALS = "credential-stuffing"
    REPLAYS = "replay-storm"
    SESSION_REPLAYS = "session-replay-storm"
    REGION_JUMP = "impossible-region"
    STEP_UPS = "failed-step-ups"
    OPENINGS = "unused-sessions"


class Reaction(enum.Enum):
    """What was done about a threat."""

    TELL = "tell"
    RAISE_RISK = "raise-risk"
    STEP_UP = "step-up"
    LOCK_OUT = "lock-out"


@dataclass(frozen=True, slots=True)
class ThreatEvent:
    """One threat. `count` is how often within its time, `until` (seconds since the epoch, 0: no end) how long the
    reaction holds, `now` when it was seen."""

    pattern: Pattern
    against: Against
    subject: str
    count: int
    reaction: Reaction
    until: int
    now: int
