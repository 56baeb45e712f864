"""What an operator may set of risk: the `[risk]` table."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Points = Annotated[int, msgspec.Meta(ge=0, le=100)]

EXAMPLE: Final = """\
[risk]                                        # how the risk score of a request comes about; docs/risk.md
principals = 100000                           # remembered at a time
half_life_s = 300                             # of what a refusal adds
refusal_points = 12                           # for each recent refusal of the principal
source_points = 48                            # at most, for refusals of strangers from the same source
cold_points = 10                              # while too little is known of a principal
cold_observations = 20                        # until so many requests were learned
learn_every_s = 60                            # one request in this time is learned, of each principal
learning_rate = 0.01                          # how far one request moves what is usual, once that is known
rate_free = 60                                # requests a minute that are never unusual
rate_limit = 600                              # requests a minute from which on the score rises whatever is usual
size_free = 65536                             # bytes of a body that are never unusual
travel_s = 3600                               # a change of region within this time is a travel that cannot be
"""


class RiskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the score comes about. Times in seconds, rates in requests a minute, sizes in bytes, points of 100.

    `unusual_points` bounds all that compares a request with what is usual for its principal taken together, so that
    something new is never refused for being new alone. The bounds of `source_points`, here and of threats, and of
    `cold_points` add up to 69, which the shipped policies let pass: strangers cannot lock out a newcomer either.
    """

    principals: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 100_000
    sources: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 100_000
    half_life_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300
    refusal_points: Annotated[int, msgspec.Meta(ge=1, le=100)] = 12
    source_points: Annotated[int, msgspec.Meta(ge=0, le=49)] = 48
    cold_points: Annotated[int, msgspec.Meta(ge=0, le=10)] = 10
    cold_observations: Annotated[int, msgspec.Meta(ge=5, le=10_000)] = 20
    unusual_points: Annotated[int, msgspec.Meta(ge=0, le=100)] = 60
    learn_every_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=0.05)] = 0.01
    forget_s: Annotated[int, msgspec.Meta(ge=3600, le=31_622_400)] = 1_209_600
    rate_free: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 60
    rate_limit: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 600
    size_free: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 65_536
    travel_s: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 3600
    hour_points: Points = 10
    weekday_points: Points = 5
    rate_points: Points = 20
    size_points: Points = 15
    action_points: Points = 15
    region_points: Points = 15
    travel_points: Points = 40
    drift_points: Points = 20
    forest_points: Points = 15
    queue: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
