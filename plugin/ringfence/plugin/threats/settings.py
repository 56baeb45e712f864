"""What an operator may set of threat detection: the `[threats]` table."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

ReactionName = Literal["tell", "raise-risk", "step-up", "lock-out"]

EXAMPLE: Final = """\
[threats]                                     # patterns of attack and what is done about them; docs/risk.md
lock_s = 30                                   # the first lock-out; each further one takes twice as long
lock_max_s = 3600                             # but never longer
principal_per_s = 100.0                       # requests of one principal; 0: as many as it likes
principal_burst = 400                         # at once
source_per_s = 50.0                           # unauthenticated requests of one source; 0: as many as it likes
source_burst = 200                            # at once
shared_sources = []                           # networks of proxies: many callers, so neither locked out nor limited

[threats.refusals]                            # of one principal or source; each pattern has such a table
count = 20                                    # so many
within_s = 60                                 # in so long
reaction = "lock-out"                         # or "tell", "raise-risk", "step-up"
"""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `count` within `within_s` seconds on it is a threat, and `reaction` is what is done."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    within_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    reaction: ReactionName = "raise-risk"


class ThreatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When what happens is a threat. Times in seconds; `*_points` of the risk score's 100.

    `credentials` counts how many different principals one source claims to be; `region_jump` changes of region in one
    session within its time; `step_ups` requests for a further factor that was not shown; `openings` sessions that were
    opened and not used; `session_replays` replays in one session from anywhere, which are only told of, since a copy
    of a message says nothing about who sent it.
    """

    subjects: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 100_000
    sessions: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 100_000
    refusals: Rule = Rule(20, 60, "lock-out")
    credentials: Rule = Rule(8, 300, "lock-out")
    replays: Rule = Rule(10, 60, "lock-out")
    session_replays: Rule = Rule(10, 60, "tell")
    region_jump: Rule = Rule(1, 300, "step-up")
    step_ups: Rule = Rule(5, 300, "raise-risk")
    openings: Rule = Rule(20, 60, "raise-risk")
    factor: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "signature"
    step_up_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    threat_points: Annotated[int, msgspec.Meta(ge=0, le=100)] = 20
    most_points: Annotated[int, msgspec.Meta(ge=0, le=100)] = 60
    source_points: Annotated[int, msgspec.Meta(ge=0, le=10)] = 10
    half_life_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300
    lock_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    lock_max_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3600
    strike_half_life_s: Annotated[int, msgspec.Meta(ge=60, le=604_800)] = 3600
    principal_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 100.0
    principal_burst: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 400
    source_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 50.0
    source_burst: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200
    shared_sources: Annotated[tuple[str, ...], msgspec.Meta(max_length=1024)] = ()
