"""What an operator may set of device trust: the `[device]` table."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

EXAMPLE: Final = """\
[device]                                      # how a host's trust comes about; docs/risk.md
half_life_s = 604800                          # of what was seen of a device
evidence = 30.0                               # how much of it counts at most, so that a good past hides nothing
age_points = 10                               # taken off when an attestation result is about to end
"""

_Points = Annotated[int, msgspec.Meta(ge=0, le=100)]


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds, points of 100; `evidence` in observations of weight 1."""

    devices: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 10_000
    half_life_s: Annotated[int, msgspec.Meta(ge=60, le=31_622_400)] = 604_800
    evidence: Annotated[float, msgspec.Meta(ge=1, le=10_000)] = 30.0
    heaviest: Annotated[float, msgspec.Meta(ge=1, le=10_000)] = 10.0
    age_points: _Points = 10
    reputation_points: _Points = 40
    change_points: _Points = 15
    proof_points: _Points = 25
